/* A small JSON tree: read, look up, change, write. Knows nothing of NVML.
 *
 * Lookups never fail: a missing key or a wrong type gives the caller's fallback, so that a malformed
 * state file can make the simulation poorer but never crash it. Trees are owned by the caller of
 * json_read and freed whole; a node added to a tree belongs to it.
 */
#ifndef DS01_SIM_JSON_H
#define DS01_SIM_JSON_H

#include <stddef.h>
#include <stdint.h>

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_kind kind;
    int64_t number;      /* JSON_BOOL, JSON_NUMBER: the integer part, clamped to +-2^61 */
    char *text;          /* JSON_STRING */
    char *key;           /* set when the parent is an object */
    struct json *child;  /* first element or member */
    struct json *next;
};

struct json *json_read(const char *text, size_t length); /* NULL when malformed, too deep or out of memory */
char *json_write(const struct json *node);               /* malloc'd text; NULL when out of memory */
void json_free(struct json *node);

struct json *json_get(const struct json *object, const char *key);         /* NULL when absent */
int64_t json_int(const struct json *object, const char *key, int64_t fallback);
const char *json_text(const struct json *object, const char *key, const char *fallback);
struct json *json_first(const struct json *object, const char *key);       /* first element of an array member */
int json_is_null(const struct json *object, const char *key);              /* present and null */

struct json *json_new(enum json_kind kind);
struct json *json_set_int(struct json *object, const char *key, int64_t value);
struct json *json_put(struct json *object, const char *key, struct json *value); /* frees value on failure */
struct json *json_append(struct json *array, struct json *value);
void json_remove(struct json *parent, struct json *child);

#endif
