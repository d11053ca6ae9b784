#define _POSIX_C_SOURCE 200809L
#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 32
#define MAX_INTEGER (1LL << 61) /* two of them can be added; nanoseconds of the wall clock fit */
#define EXACT_DOUBLE (1LL << 53)

struct reader {
    const char *at, *end;
    int depth;
};

static struct json *read_value(struct reader *r);

struct json *json_new(enum json_kind kind) {
    struct json *node = calloc(1, sizeof *node);
    if (node) node->kind = kind;
    return node;
}

void json_free(struct json *node) {
    while (node) {
        struct json *next = node->next;
        json_free(node->child);
        free(node->text);
        free(node->key);
        free(node);
        node = next;
    }
}

static void skip_space(struct reader *r) {
    while (r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at) r->at++;
}

static int take(struct reader *r, char wanted) {
    skip_space(r);
    if (r->at >= r->end || *r->at != wanted) return 0;
    r->at++;
    return 1;
}

static int hex4(struct reader *r, unsigned *code) {
    *code = 0;
    if (r->end - r->at < 4) return 0;
    for (int i = 0; i < 4; i++, r->at++) {
        char c = *r->at;
        unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0')
                       : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                       : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10) : 16;
        if (digit > 15) return 0;
        *code = *code * 16 + digit;
    }
    return 1;
}

/* One escape after the backslash; beyond ASCII becomes '?': names and UUIDs are ASCII. */
static int read_escape(struct reader *r, char *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (r->at >= r->end) return 0;
    char c = *r->at++;
    unsigned code;
    if (c == 'u') {
        if (!hex4(r, &code)) return 0;
        *out = code && code < 128 ? (char)code : '?';
        return 1;
    }
    const char *hit = c ? strchr(from, c) : NULL;
    if (!hit) return 0;
    *out = to[hit - from];
    return 1;
}

static char *read_string(struct reader *r) {
    if (!take(r, '"')) return NULL;
    const char *close = r->at;
    while (close < r->end && *close != '"') close += *close == '\\' ? 2 : 1;
    if (close >= r->end) return NULL;
    char *text = malloc((size_t)(close - r->at) + 1), *out = text;
    if (!text) return NULL;
    while (*r->at != '"') {
        unsigned char c = (unsigned char)*r->at++;
        if (c >= 0x20 && c != '\\') { *out++ = (char)c; continue; }
        if (c < 0x20 || !read_escape(r, out++)) { free(text); return NULL; }
    }
    r->at++;
    *out = 0;
    return text;
}

static struct json *read_number(struct reader *r) {
    char digits[40];
    size_t n = 0;
    while (r->at < r->end && n < sizeof digits - 1 && *r->at && strchr("+-0123456789.eE", *r->at)) digits[n++] = *r->at++;
    digits[n] = 0;
    char *stop;
    double value = strtod(digits, &stop);
    if (!n || *stop || value != value) return NULL;
    struct json *node = json_new(JSON_NUMBER);
    if (!node) return NULL;
    if (value > -EXACT_DOUBLE && value < EXACT_DOUBLE) node->number = (int64_t)value;
    else if (value >= MAX_INTEGER || value <= -MAX_INTEGER) node->number = value > 0 ? MAX_INTEGER : -MAX_INTEGER;
    else node->number = strpbrk(digits, ".eE") ? (int64_t)value : strtoll(digits, NULL, 10);
    return node;
}

static struct json *read_word(struct reader *r, const char *word, enum json_kind kind, int64_t number) {
    size_t n = strlen(word);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n) != 0) return NULL;
    r->at += n;
    struct json *node = json_new(kind);
    if (node) node->number = number;
    return node;
}

/* Members up to `close`; each read with its key when the parent is an object. */
static int read_members(struct reader *r, struct json *parent, char close) {
    struct json **tail = &parent->child;
    if (take(r, close)) return 1;
    do {
        char *key = NULL;
        if (close == '}' && (!(key = read_string(r)) || !take(r, ':'))) { free(key); return 0; }
        struct json *node = read_value(r);
        if (!node) { free(key); return 0; }
        node->key = key;
        *tail = node;
        tail = &node->next;
    } while (take(r, ','));
    return take(r, close);
}

static struct json *read_container(struct reader *r, enum json_kind kind, char close) {
    struct json *node = json_new(kind);
    r->at++;
    if (!node || ++r->depth > MAX_DEPTH || !read_members(r, node, close)) { json_free(node); return NULL; }
    r->depth--;
    return node;
}

static struct json *read_value(struct reader *r) {
    skip_space(r);
    if (r->at >= r->end) return NULL;
    switch (*r->at) {
        case '{': return read_container(r, JSON_OBJECT, '}');
        case '[': return read_container(r, JSON_ARRAY, ']');
        case 't': return read_word(r, "true", JSON_BOOL, 1);
        case 'f': return read_word(r, "false", JSON_BOOL, 0);
        case 'n': return read_word(r, "null", JSON_NULL, 0);
        case '"': {
            char *text = read_string(r);
            struct json *node = text ? json_new(JSON_STRING) : NULL;
            if (node) node->text = text; else free(text);
            return node;
        }
        default: return read_number(r);
    }
}

struct json *json_read(const char *text, size_t length) {
    struct reader r = {.at = text, .end = text + length};
    struct json *root = read_value(&r);
    skip_space(&r);
    if (root && r.at != r.end) { json_free(root); return NULL; }
    return root;
}

struct json *json_get(const struct json *object, const char *key) {
    if (!object || object->kind != JSON_OBJECT) return NULL;
    for (struct json *m = object->child; m; m = m->next)
        if (strcmp(m->key, key) == 0) return m;
    return NULL;
}

int64_t json_int(const struct json *object, const char *key, int64_t fallback) {
    const struct json *m = json_get(object, key);
    return m && (m->kind == JSON_NUMBER || m->kind == JSON_BOOL) ? m->number : fallback;
}

const char *json_text(const struct json *object, const char *key, const char *fallback) {
    const struct json *m = json_get(object, key);
    return m && m->kind == JSON_STRING ? m->text : fallback;
}

struct json *json_first(const struct json *object, const char *key) {
    const struct json *m = json_get(object, key);
    return m && m->kind == JSON_ARRAY ? m->child : NULL;
}

int json_is_null(const struct json *object, const char *key) {
    const struct json *m = json_get(object, key);
    return m && m->kind == JSON_NULL;
}

struct json *json_append(struct json *array, struct json *value) {
    if (!array || !value) { json_free(value); return NULL; }
    struct json **tail = &array->child;
    while (*tail) tail = &(*tail)->next;
    return *tail = value;
}

void json_remove(struct json *parent, struct json *child) {
    for (struct json **at = &parent->child; *at; at = &(*at)->next) {
        if (*at != child) continue;
        *at = child->next;
        child->next = NULL;
        json_free(child);
        return;
    }
}

struct json *json_put(struct json *object, const char *key, struct json *value) {
    char *copy = object && value ? strdup(key) : NULL;
    if (!copy) { json_free(value); return NULL; }
    struct json *old = json_get(object, key);
    if (old) json_remove(object, old);
    value->key = copy;
    return json_append(object, value);
}

struct json *json_set_int(struct json *object, const char *key, int64_t value) {
    struct json *node = json_new(JSON_NUMBER);
    if (node) node->number = value;
    return json_put(object, key, node);
}

static void write_string(FILE *out, const char *text) {
    fputc('"', out);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') fprintf(out, "\\%c", c);
        else if (c < 0x20) fprintf(out, "\\u%04x", c);
        else fputc(c, out);
    }
    fputc('"', out);
}

static void write_node(FILE *out, const struct json *node) {
    switch (node->kind) {
        case JSON_NULL: fputs("null", out); return;
        case JSON_BOOL: fputs(node->number ? "true" : "false", out); return;
        case JSON_NUMBER: fprintf(out, "%lld", (long long)node->number); return;
        case JSON_STRING: write_string(out, node->text); return;
        case JSON_ARRAY:
        case JSON_OBJECT: break;
    }
    fputc(node->kind == JSON_ARRAY ? '[' : '{', out);
    for (const struct json *m = node->child; m; m = m->next) {
        if (m->key) { write_string(out, m->key); fputc(':', out); }
        write_node(out, m);
        if (m->next) fputc(',', out);
    }
    fputc(node->kind == JSON_ARRAY ? ']' : '}', out);
}

char *json_write(const struct json *node) {
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (!out) return NULL;
    write_node(out, node);
    int failed = ferror(out);
    if (fclose(out) != 0 || failed) { free(text); return NULL; }
    return text;
}
