/* Who uses a device and how much of its memory. */
#define _GNU_SOURCE
#include "nvml.h"

#include <stdint.h>
#include <unistd.h>

#define MIB (1024ULL * 1024)
#define MODES "CGM" /* compute, graphics, MPS; after them all, which a type of 0 stands for */

/* The parent of MIG devices shows the processes inside them to root only; nobody sees one of a foreign PID namespace. */
int processes_of(const struct target *t, struct process *out) {
    int all = state_processes(t->gpu, out, MAX_PROCESSES), kept = 0;
    for (int i = 0; i < all; i++) {
        int inside = out[i].gi != NO_INSTANCE;
        int mine = t->kind == KIND_MIG ? out[i].gi == t->gi_id && out[i].ci == t->ci_id : !inside || geteuid() == 0;
        if (mine && out[i].pid) out[kept++] = out[i];
    }
    return kept;
}

/* Where the rows of one call go: one of the three layouts that drivers have had. */
struct rows { process_info_v1 *v1; process_info *v2; process_detail *detail; };

static void put_row(const struct rows *rows, unsigned n, const struct process *p) {
    unsigned long long used = p->mib == UNKNOWN_MIB ? UINT64_MAX : (uint64_t)p->mib * MIB;
    if (rows->v1) rows->v1[n] = (process_info_v1){.pid = p->pid, .used = used};
    if (rows->v2) rows->v2[n] = (process_info){.pid = p->pid, .used = used, .gi = p->gi, .ci = p->ci};
    if (rows->detail)
        rows->detail[n] = (process_detail){.pid = p->pid, .used = used, .gi = p->gi, .ci = p->ci};
}

/* `type` 0: all. Leaves the call. */
static int list_processes(void *device, char type, unsigned *count, unsigned room, const struct rows *rows) {
    static struct process all[MAX_PROCESSES]; /* under the state's mutex */
    struct target t;
    unsigned n = 0;
    FIND(device, &t);
    for (int i = 0, total = processes_of(&t, all); i < total; i++) {
        if (type && all[i].type != type) continue;
        if (n < room) put_row(rows, n, &all[i]);
        n++;
    }
    *count = n;
    return api_leave(n > room ? INSUFFICIENT_SIZE : OK);
}

#define PROCESSES(function, type) \
    API int function(void *device, unsigned *count, process_info_v1 *out) { \
        ENTER(device); \
        return list_processes(device, type, count, out ? *count : 0, &(struct rows){.v1 = out}); \
    } \
    API int function##_v2(void *device, unsigned *count, process_info *out) { \
        ENTER(device); \
        return list_processes(device, type, count, out ? *count : 0, &(struct rows){.v2 = out}); \
    } \
    API int function##_v3(void *device, unsigned *count, process_info *out) { \
        ENTER(device); \
        return list_processes(device, type, count, out ? *count : 0, &(struct rows){.v2 = out}); \
    }

PROCESSES(nvmlDeviceGetComputeRunningProcesses, 'C')
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, 'G')
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, 'M')

API int nvmlDeviceGetRunningProcessDetailList(void *device, process_details *list) {
    ENTER(device);
    if (list->version != NVML_VERSION(process_details, 1)) return api_leave(VERSION_MISMATCH);
    if (list->mode >= sizeof MODES) return api_leave(INVALID_ARGUMENT);
    unsigned room = list->processes ? list->count : 0;
    return list_processes(device, MODES[list->mode], &list->count, room, &(struct rows){.detail = list->processes});
}

/* Memory counts every process on the device, also those the caller may not list, and what no process owns.
 * A device whose size is not known has none of these numbers. Leaves the state taken. */
static int memory_of(const struct target *t, memory_v1 *out) {
    static struct process all[MAX_PROCESSES];
    const struct profile *profile = t->kind == KIND_MIG ? gi_profile(t) : NULL;
    int64_t total = t->kind == KIND_MIG ? (profile ? (int64_t)profile->mib : -1) : json_int(t->gpu, "mem_mib", -1);
    int64_t used = json_int(t->kind == KIND_MIG ? t->gi : t->gpu, "ghost_mib", 0);
    if (total < 0 || (t->kind != KIND_MIG && t->kind != KIND_GPU)) return NOT_SUPPORTED;
    int n = state_processes(t->gpu, all, MAX_PROCESSES);
    for (int i = 0; i < n; i++)
        if (all[i].mib > 0 && used <= total && (t->kind == KIND_GPU || all[i].gi == t->gi_id)) used += all[i].mib;
    if (used > total) used = total;
    if (used < 0) used = 0;
    *out = (memory_v1){.total = (uint64_t)total * MIB, .free = (uint64_t)(total - used) * MIB, .used = (uint64_t)used * MIB};
    return OK;
}

API int nvmlDeviceGetMemoryInfo(void *device, memory_v1 *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    return api_leave(memory_of(&t, out));
}

API int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *out) {
    ENTER(device);
    struct target t;
    memory_v1 memory;
    FIND(device, &t);
    if (out->version != NVML_VERSION(memory_v2, 2)) return api_leave(VERSION_MISMATCH);
    int ret = memory_of(&t, &memory);
    if (!ret) *out = (memory_v2){.version = out->version, .total = memory.total, .free = memory.free, .used = memory.used};
    return api_leave(ret);
}

API int nvmlDeviceGetBAR1MemoryInfo(void *device, memory_v1 *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    *out = (memory_v1){.total = 65536 * MIB, .free = 65535 * MIB, .used = MIB};
    return api_leave(OK);
}

API int nvmlDeviceGetProcessUtilization(void *device, process_sample *out, unsigned *count, unsigned long long since_us) {
    static struct process all[MAX_PROCESSES];
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (!measured(&t)) return api_leave(NOT_SUPPORTED);
    unsigned n = 0, room = out ? *count : 0;
    uint64_t now = now_us();
    for (int i = 0, total = now > since_us ? processes_of(&t, all) : 0; i < total; i++) {
        if (!all[i].sm) continue;
        if (n < room) out[n] = (process_sample){.pid = all[i].pid, .time_us = now, .sm = all[i].sm};
        n++;
    }
    *count = n;
    return api_leave(!n ? NOT_FOUND : n > room ? INSUFFICIENT_SIZE : OK);
}
