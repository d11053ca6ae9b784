/* Accounting of whole GPUs: what ended processes had used. `accounting` of a GPU has the mode and the records, newest
 * last; processes that still run are added. MIG mode forces it off.
 */
#define _GNU_SOURCE
#include "nvml.h"

#include <unistd.h>

#define MIB (1024ULL * 1024)
#define RECORDS 4000

/* The record table, NULL where there is none: a MIG device, MIG mode, or a board without it. */
static struct json *table_of(const struct target *t) {
    struct json *table = t->kind == KIND_GPU && !has_mig(t) ? json_get(t->gpu, "accounting") : NULL;
    return table && table->kind == JSON_OBJECT ? table : NULL;
}

API int nvmlDeviceGetAccountingMode(void *device, unsigned *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (t.kind != KIND_GPU) return api_leave(NOT_SUPPORTED);
    *out = json_int(table_of(&t), "mode", 0) == 1;
    return api_leave(OK);
}

API int nvmlDeviceSetAccountingMode(void *device, unsigned mode) {
    ENTER(device);
    struct target t;
    int ret = change_begin(device, KIND_GPU, &t);
    if (ret) return api_leave(ret);
    struct json *table = table_of(&t);
    if (!table) return change_end(NOT_SUPPORTED);
    return change_end(mode <= 1 && json_set_int(table, "mode", mode) ? OK : INVALID_ARGUMENT);
}

API int nvmlDeviceClearAccountingPids(void *device) {
    ENTER(device);
    struct target t;
    int ret = change_begin(device, KIND_GPU, &t);
    if (ret) return api_leave(ret);
    struct json *table = table_of(&t);
    return change_end(table && json_put(table, "records", json_new(JSON_ARRAY)) ? OK : NOT_SUPPORTED);
}

API int nvmlDeviceGetAccountingBufferSize(void *device, unsigned *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (!table_of(&t)) return api_leave(NOT_SUPPORTED);
    *out = RECORDS;
    return api_leave(OK);
}

API int nvmlDeviceGetAccountingPids(void *device, unsigned *count, unsigned *out) {
    static struct process all[MAX_PROCESSES];
    ENTER(device);
    struct target t;
    FIND(device, &t);
    struct json *table = table_of(&t);
    if (!table || json_int(table, "mode", 0) != 1) return api_leave(NOT_SUPPORTED);
    unsigned n = 0, room = out ? *count : 0;
    for (struct json *r = json_first(table, "records"); r; r = r->next, n++)
        if (n < room) out[n] = (unsigned)json_int(r, "pid", 0);
    for (int i = 0, total = processes_of(&t, all); i < total; i++, n++)
        if (n < room) out[n] = all[i].pid;
    *count = n;
    return api_leave(n > room ? INSUFFICIENT_SIZE : OK);
}

API int nvmlDeviceGetAccountingStats(void *device, unsigned pid, accounting *out) {
    static struct process all[MAX_PROCESSES];
    ENTER(device);
    struct target t;
    FIND(device, &t);
    struct json *table = table_of(&t), *found = NULL;
    if (!table || json_int(table, "mode", 0) != 1) return api_leave(NOT_SUPPORTED);
    for (int i = 0, total = processes_of(&t, all); i < total; i++) {
        if (all[i].pid != pid) continue;
        *out = (accounting){.gpu = all[i].sm, .running = 1,
                            .max_memory = all[i].mib == UNKNOWN_MIB ? UINT64_MAX : (uint64_t)all[i].mib * MIB};
        return api_leave(OK);
    }
    for (struct json *r = json_first(table, "records"); r; r = r->next)
        if (json_int(r, "pid", 0) == (int64_t)pid) found = r; /* a pid that came back: the newer one */
    if (!found) return api_leave(NOT_FOUND);
    int64_t mib = json_int(found, "max_mib", UNKNOWN_MIB);
    *out = (accounting){.gpu = (unsigned)json_int(found, "gpu", 0), .memory = (unsigned)json_int(found, "mem", 0),
                        .max_memory = mib < 0 ? UINT64_MAX : (uint64_t)mib * MIB,
                        .time_ms = (uint64_t)json_int(found, "time_ms", 0), .start_us = (uint64_t)json_int(found, "start_us", 0)};
    return api_leave(OK);
}
