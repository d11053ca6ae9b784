/* Faults that a person or a test ordered: by symbol and GPU, after so many calls, so many times. */
#define _GNU_SOURCE
#include "state.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_FAULTS 64

/* Calls that each fault has met in this process, by the fault's own text: an edited fault counts anew. */
static int64_t meet(const struct json *fault) {
    static struct { uint64_t hash; int64_t calls; } met[MAX_FAULTS];
    char *text = json_write(fault);
    uint64_t hash = 1469598103934665603U;
    for (const char *c = text; c && *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211U;
    free(text);
    for (int i = 0; i < MAX_FAULTS; i++) {
        if (met[i].calls && met[i].hash != hash) continue;
        met[i].hash = hash;
        return ++met[i].calls;
    }
    return 1;
}

static int due(const struct json *fault) {
    int64_t calls = meet(fault) - json_int(fault, "after_calls", 0);
    return calls >= 1 && calls <= json_int(fault, "times", INT64_MAX);
}

/* `*` at the end stands for any rest. */
static int names(const struct json *fault, const char *symbol) {
    const char *wanted = json_text(fault, "symbol", "");
    size_t length = strlen(wanted);
    if (length && wanted[length - 1] == '*') return strncmp(wanted, symbol, length - 1) == 0;
    return strcmp(wanted, symbol) == 0;
}

struct fault fault_meet(const char *symbol, const char *gpu_uuid) {
    struct fault all = {0};
    for (struct json *f = json_first(state_root(), "faults"); f; f = f->next) {
        const char *gpu = json_text(f, "gpu", NULL);
        if (!names(f, symbol) || (gpu && (!gpu_uuid || strcasecmp(gpu, gpu_uuid) != 0)) || !due(f)) continue;
        if (!all.hang_ms) all.hang_ms = json_int(f, "hang_ms", 0);
        if (!all.ret) all.ret = (int)json_int(f, "ret", 0);
        if (json_int(f, "sigterm_proof", 0)) all.deaf = 1;
    }
    return all;
}

int fault_giving(const char *symbol, const char *gpu_uuid) {
    for (struct json *f = json_first(state_root(), "faults"); f; f = f->next) {
        const char *gpu = json_text(f, "gpu", NULL);
        if (gpu && strcasecmp(gpu, gpu_uuid) == 0 && strcmp(json_text(f, "symbol", ""), symbol) == 0 && due(f))
            return (int)json_int(f, "ret", 0);
    }
    return 0;
}
