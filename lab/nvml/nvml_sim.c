/* libnvidia-ml.so.1: initialisation, inventory, processes, measurements. MIG is in nvml_mig.c, events in nvml_event.c. */
#define _GNU_SOURCE
#include "nvml.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define MIB (1024ULL * 1024)
#define MAX_PROCESSES 1024
#define UUID_LENGTH 96

static int users; /* nested initialisations */
static char known[MAX_GPUS][UUID_LENGTH]; /* GPU slots by UUID: a handle survives any reordering */

static int slot_of(const char *uuid) {
    for (int i = 0; i < MAX_GPUS; i++) {
        if (!known[i][0]) snprintf(known[i], UUID_LENGTH, "%s", uuid);
        if (strcasecmp(known[i], uuid) == 0) return i;
    }
    return -1;
}

void *handle_make(enum handle_kind kind, const char *gpu_uuid, unsigned gi, unsigned ci) {
    int slot = *gpu_uuid ? slot_of(gpu_uuid) : -1;
    if (slot < 0) return NULL;
    return (void *)((uintptr_t)kind << 28 | (uintptr_t)(slot + 1) << 16 | (uintptr_t)(gi & 0xFF) << 8 | (ci & 0xFF));
}

static struct json *by_id(const struct json *parent, const char *key, unsigned id) {
    for (struct json *node = json_first(parent, key); node; node = node->next)
        if (json_int(node, "id", -1) == (int64_t)id) return node;
    return NULL;
}

int handle_find(const void *handle, struct target *out) {
    uintptr_t bits = (uintptr_t)handle, slot = bits >> 16 & 0xFFF;
    *out = (struct target){.kind = bits >> 28, .gi_id = bits >> 8 & 0xFF, .ci_id = bits & 0xFF};
    if (out->kind < KIND_GPU || out->kind > KIND_CI || !slot || slot > MAX_GPUS || !known[slot - 1][0]) return INVALID_ARGUMENT;
    out->gpu = state_gpu(known[slot - 1]);
    if (!out->gpu) return NOT_FOUND;
    out->uuid = known[slot - 1];
    out->set = json_text(out->gpu, "profile_set", "");
    if (out->kind != KIND_GPU && !(out->gi = by_id(out->gpu, "gis", out->gi_id))) return NOT_FOUND;
    if ((out->kind == KIND_MIG || out->kind == KIND_CI) && !(out->ci = by_id(out->gi, "cis", out->ci_id))) return NOT_FOUND;
    return OK;
}

static void sleep_ms(int64_t ms) {
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0) {}
}

int api_leave(int ret) { state_leave(); return ret; }

/* A hang sleeps without the state, as a driver call hangs for one thread and not for the process. */
int api_enter(const char *symbol, const void *handle) {
    uintptr_t slot = (uintptr_t)handle >> 16 & 0xFFF;
    int64_t hang_ms;
    state_enter();
    int starting = strncmp(symbol, "nvmlInit", 8) == 0;
    int ret = state_fault(symbol, slot && slot <= MAX_GPUS ? known[slot - 1] : NULL, &hang_ms);
    if (hang_ms > 0) {
        state_leave();
        sleep_ms(hang_ms);
        state_enter();
    }
    if (!ret && !state_root()) ret = DRIVER_NOT_LOADED;
    if (!ret && !users && !starting) ret = UNINITIALIZED;
    if (ret) state_leave();
    return ret;
}

int has_mig(const struct target *t) { return json_int(json_get(t->gpu, "mig"), "current", 0) == 1 && mig_profiles(t->set); }

int copy_text(char *out, unsigned length, const char *text) {
    if (!out) return INVALID_ARGUMENT;
    if (strlen(text) + 1 > length) return INSUFFICIENT_SIZE;
    memcpy(out, text, strlen(text) + 1);
    return OK;
}

/* --- start and end --- */

API int nvmlInitWithFlags(unsigned flags) { (void)flags; ENTER(NULL); users++; return api_leave(OK); }
API int nvmlInit_v2(void) { ENTER(NULL); users++; return api_leave(OK); }
API int nvmlInit(void) { ENTER(NULL); users++; return api_leave(OK); }
API int nvmlShutdown(void) { ENTER(NULL); users--; return api_leave(OK); }

API const char *nvmlErrorString(int code) {
    static const char *const texts[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions", "Already Initialized",
        "Not Found", "Insufficient Size", "Insufficient External Power", "Driver Not Loaded", "Timeout", "Interrupt Request Issue",
        "NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM", "GPU is lost", "GPU requires reset",
        "GPU access blocked by the operating system", "Driver/library version mismatch", "In use by another client",
        "Insufficient Memory", "No data", "VGPU ECC not supported", "Insufficient Resources", "Frequency not supported",
        "Argument version mismatch", "Deprecated", "Not ready", "GPU not found", "Invalid state"};
    return code >= 0 && code < (int)(sizeof texts / sizeof *texts) ? texts[code] : "Unknown Error";
}

API int nvmlSystemGetDriverVersion(char *out, unsigned length) {
    ENTER(NULL);
    return api_leave(copy_text(out, length, json_text(state_root(), "driver", "550.54.15")));
}

API int nvmlSystemGetNVMLVersion(char *out, unsigned length) {
    ENTER(NULL);
    char text[64];
    snprintf(text, sizeof text, "12.%.48s", json_text(state_root(), "driver", "550.54.15"));
    return api_leave(copy_text(out, length, text));
}

API int nvmlSystemGetCudaDriverVersion_v2(int *out) { ENTER(NULL); *out = (int)json_int(state_root(), "cuda", 12040); return api_leave(OK); }
API int nvmlSystemGetCudaDriverVersion(int *out) { ENTER(NULL); *out = (int)json_int(state_root(), "cuda", 12040); return api_leave(OK); }

/* --- inventory --- */

/* The n-th visible GPU, or NULL; `count` gets how many there are. */
static struct json *nth_gpu(unsigned n, unsigned *count) {
    struct json *hit = NULL;
    unsigned i = 0;
    for (struct json *gpu = json_first(state_root(), "gpus"); gpu; gpu = gpu->next) {
        if (!*json_text(gpu, "uuid", "") || strlen(json_text(gpu, "uuid", "")) >= UUID_LENGTH) continue;
        if (!state_gpu_visible(gpu)) continue;
        if (i++ == n) hit = gpu;
    }
    if (count) *count = i;
    return hit;
}

static int give_gpu(const struct json *gpu, void **out) {
    if (!gpu) return NOT_FOUND;
    *out = handle_make(KIND_GPU, json_text(gpu, "uuid", ""), 0, 0);
    return *out ? OK : UNKNOWN;
}

API int nvmlDeviceGetCount_v2(unsigned *out) { ENTER(NULL); nth_gpu(0, out); return api_leave(OK); }

API int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) {
    ENTER(NULL);
    struct json *gpu = nth_gpu(index, NULL);
    return api_leave(gpu ? give_gpu(gpu, out) : INVALID_ARGUMENT);
}

static int find_mig(const struct json *gpu, const char *uuid, void **out) {
    const char *gpu_uuid = json_text(gpu, "uuid", "");
    char text[UUID_TEXT];
    for (struct json *gi = json_first(gpu, "gis"); gi; gi = gi->next)
        for (struct json *ci = json_first(gi, "cis"); ci; ci = ci->next) {
            unsigned gi_id = (unsigned)json_int(gi, "id", 0), ci_id = (unsigned)json_int(ci, "id", 0);
            mig_uuid(gpu_uuid, gi_id, ci_id, text);
            if (strcasecmp(text, uuid) != 0 || !(state_visible(text) || state_visible(gpu_uuid))) continue;
            *out = handle_make(KIND_MIG, gpu_uuid, gi_id, ci_id);
            return *out ? OK : UNKNOWN;
        }
    return NOT_FOUND;
}

API int nvmlDeviceGetHandleByUUID(const char *uuid, void **out) {
    ENTER(NULL);
    int ret = NOT_FOUND;
    struct json *gpu = uuid ? state_gpu(uuid) : NULL;
    if (!uuid) ret = INVALID_ARGUMENT;
    else if (gpu && state_gpu_visible(gpu)) ret = give_gpu(gpu, out);
    for (gpu = json_first(state_root(), "gpus"); ret == NOT_FOUND && gpu; gpu = gpu->next) ret = find_mig(gpu, uuid, out);
    return api_leave(ret);
}

API int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **out) {
    ENTER(NULL);
    struct json *gpu;
    for (unsigned i = 0; (gpu = nth_gpu(i, NULL)); i++)
        if (bus && strcasecmp(json_text(gpu, "pci", ""), bus) == 0) break;
    return api_leave(give_gpu(gpu, out));
}

API int nvmlDeviceGetIndex(void *device, unsigned *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    struct json *gpu;
    for (unsigned i = 0; (gpu = nth_gpu(i, NULL)); i++)
        if (gpu == t.gpu) { *out = i; return api_leave(OK); }
    return api_leave(NOT_FOUND);
}

API int nvmlDeviceGetUUID(void *device, char *out, unsigned length) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    char text[UUID_TEXT];
    if (t.kind == KIND_MIG) mig_uuid(t.uuid, t.gi_id, t.ci_id, text);
    return api_leave(copy_text(out, length, t.kind == KIND_MIG ? text : json_text(t.gpu, "uuid", "")));
}

API int nvmlDeviceGetName(void *device, char *out, unsigned length) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    const struct profile *profile = t.kind == KIND_MIG ? gi_profile(&t) : NULL;
    char text[160];
    snprintf(text, sizeof text, "%.96s%s%s", json_text(t.gpu, "name", "NVIDIA GPU"), profile ? " MIG " : "", profile ? profile->name : "");
    return api_leave(copy_text(out, length, text));
}

API int nvmlDeviceGetPciInfo_v3(void *device, pci_info *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    *out = (pci_info){.id = 0x20B010DE};
    snprintf(out->bus_id, sizeof out->bus_id, "%s", json_text(t.gpu, "pci", "00000000:00:00.0"));
    snprintf(out->legacy, sizeof out->legacy, "%.15s", out->bus_id + (strlen(out->bus_id) > 4 ? 4 : 0));
    sscanf(out->bus_id, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    return api_leave(OK);
}

API int nvmlDeviceGetSerial(void *device, char *out, unsigned length) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    const char *serial = json_text(t.gpu, "serial", NULL);
    return api_leave(serial ? copy_text(out, length, serial) : NOT_SUPPORTED);
}

/* A number of the GPU's own; MIG devices have none of these. Unknown is NOT_SUPPORTED, never 0. */
static int gpu_number(const char *symbol, void *device, const char *group, const char *key, unsigned *out) {
    int entered = api_enter(symbol, device);
    if (entered) return entered;
    struct target t;
    FIND(device, &t);
    int64_t value = t.kind == KIND_GPU ? json_int(group ? json_get(t.gpu, group) : t.gpu, key, -1) : -1;
    if (value < 0) return api_leave(NOT_SUPPORTED);
    *out = value > UINT32_MAX ? UINT32_MAX : (unsigned)value;
    return api_leave(OK);
}

#define NUMBER(function, group, key) \
    API int function(void *device, unsigned *out) { return gpu_number(__func__, device, group, key, out); }

NUMBER(nvmlDeviceGetMinorNumber, NULL, "minor")
NUMBER(nvmlDeviceGetPowerUsage, NULL, "power_mw")
NUMBER(nvmlDeviceGetFanSpeed, NULL, "fan")

/* The same for all A100 and H100 boards in the lab. */
static int constant(const char *symbol, void *device, int value, int *out) {
    int entered = api_enter(symbol, device);
    if (entered) return entered;
    struct target t;
    FIND(device, &t);
    *out = value;
    return api_leave(OK);
}

#define CONSTANT(function, value) \
    API int function(void *device, int *out) { return constant(__func__, device, value, out); }

CONSTANT(nvmlDeviceGetEnforcedPowerLimit, 400000)
CONSTANT(nvmlDeviceGetPowerManagementLimit, 400000)
CONSTANT(nvmlDeviceGetPerformanceState, 0)
CONSTANT(nvmlDeviceGetPersistenceMode, 1)
CONSTANT(nvmlDeviceGetComputeMode, 0)
CONSTANT(nvmlDeviceGetDisplayActive, 0)
CONSTANT(nvmlDeviceGetDisplayMode, 0)
CONSTANT(nvmlDeviceGetAccountingMode, 0)

API int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    *major = strncmp(t.set, "h100", 4) == 0 ? 9 : 8;
    *minor = 0;
    return api_leave(OK);
}

API int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *out) {
    (void)sensor;
    return gpu_number(__func__, device, NULL, "temp", out);
}

API int nvmlDeviceGetTemperatureV(void *device, temperature_v1 *out) {
    if (out->version != NVML_VERSION(temperature_v1, 1)) return VERSION_MISMATCH;
    unsigned celsius = 0;
    int ret = gpu_number(__func__, device, NULL, "temp", &celsius);
    out->celsius = (int)celsius;
    return ret;
}

/* --- processes and memory --- */

/* The processes a handle shows. The parent of MIG devices shows those inside them to root only. */
static int processes_of(const struct target *t, struct process *out) {
    int all = state_processes(t->gpu, out, MAX_PROCESSES), kept = 0;
    for (int i = 0; i < all; i++) {
        int inside = out[i].gi != NO_INSTANCE;
        int mine = t->kind == KIND_MIG ? out[i].gi == t->gi_id && out[i].ci == t->ci_id : !inside || geteuid() == 0;
        if (mine) out[kept++] = out[i];
    }
    return kept;
}

static int list_processes(const char *symbol, void *device, char type, unsigned *count, process_info *out) {
    int entered = api_enter(symbol, device);
    if (entered) return entered;
    struct target t;
    static struct process all[MAX_PROCESSES]; /* under the state's mutex */
    FIND(device, &t);
    unsigned n = 0, room = out ? *count : 0;
    for (int i = 0, total = processes_of(&t, all); i < total; i++) {
        if (all[i].type != type) continue;
        if (n < room)
            out[n] = (process_info){.pid = all[i].pid, .gi = all[i].gi, .ci = all[i].ci,
                                    .used = all[i].mib == UNKNOWN_MIB ? UINT64_MAX : (uint64_t)all[i].mib * MIB};
        n++;
    }
    *count = n;
    return api_leave(n > room ? INSUFFICIENT_SIZE : OK);
}

#define PROCESSES(function, type) \
    API int function(void *device, unsigned *count, process_info *out) { return list_processes(__func__, device, type, count, out); }

PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, 'C')
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, 'C')
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, 'G')
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, 'G')
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, 'M')
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, 'M')

/* Memory counts every process on the device, also those the caller may not list. */
static memory_v1 memory_of(const struct target *t) {
    static struct process all[MAX_PROCESSES];
    const struct profile *profile = t->kind == KIND_MIG ? gi_profile(t) : NULL;
    int64_t total = profile ? profile->mib : json_int(t->gpu, "mem_mib", 0), used = 0;
    int n = state_processes(t->gpu, all, MAX_PROCESSES);
    if (t->kind == KIND_GPU) used = json_int(t->gpu, "ghost_mib", 0); /* memory that no process owns */
    for (int i = 0; i < n; i++)
        if (all[i].mib > 0 && used <= total && (t->kind == KIND_GPU || all[i].gi == t->gi_id)) used += all[i].mib;
    if (total < 0) total = 0;
    if (used > total) used = total;
    if (used < 0) used = 0;
    return (memory_v1){.total = (uint64_t)total * MIB, .free = (uint64_t)(total - used) * MIB, .used = (uint64_t)used * MIB};
}

API int nvmlDeviceGetMemoryInfo(void *device, memory_v1 *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    *out = memory_of(&t);
    return api_leave(OK);
}

API int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (out->version != NVML_VERSION(memory_v2, 2)) return api_leave(VERSION_MISMATCH);
    memory_v1 memory = memory_of(&t);
    *out = (memory_v2){.version = out->version, .total = memory.total, .free = memory.free, .used = memory.used};
    return api_leave(OK);
}

API int nvmlDeviceGetBAR1MemoryInfo(void *device, memory_v1 *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    *out = (memory_v1){.total = 65536 * MIB, .free = 65535 * MIB, .used = MIB};
    return api_leave(OK);
}

/* --- measurements: none of the utilisations exists while MIG is on --- */

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int measured(const struct target *t) {
    return t->kind == KIND_GPU && !has_mig(t) && json_int(json_get(t->gpu, "util"), "gpu", -1) >= 0;
}

API int nvmlDeviceGetUtilizationRates(void *device, utilization *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (!measured(&t)) return api_leave(NOT_SUPPORTED);
    struct json *util = json_get(t.gpu, "util");
    *out = (utilization){.gpu = (unsigned)json_int(util, "gpu", 0), .memory = (unsigned)json_int(util, "mem", 0)};
    return api_leave(OK);
}

API int nvmlDeviceGetSamples(void *device, int type, unsigned long long since_us, int *value_type, unsigned *count, sample *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (!measured(&t) || (type != 1 && type != 2)) return api_leave(NOT_SUPPORTED);
    *value_type = 1;
    uint64_t now = now_us();
    if (now <= since_us) return api_leave(NOT_FOUND);
    if (out && !*count) return api_leave(INSUFFICIENT_SIZE);
    *count = 1;
    if (out) out[0] = (sample){.time_us = now, .value = (uint64_t)json_int(json_get(t.gpu, "util"), type == 1 ? "gpu" : "mem", 0)};
    return api_leave(OK);
}

API int nvmlDeviceGetProcessUtilization(void *device, process_sample *out, unsigned *count, unsigned long long since_us) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    static struct process all[MAX_PROCESSES];
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

/* mJ since `at_ns`: what was stored plus the present power over wall time. */
static uint64_t energy_mj(const struct json *gpu) {
    const struct json *energy = json_get(gpu, "energy");
    uint64_t now = now_us();
    int64_t at_us = json_int(energy, "at_ns", 0) / 1000, power_mw = json_int(gpu, "power_mw", 0), stored = json_int(energy, "mj", 0);
    double passed_s = at_us > 0 && (uint64_t)at_us < now ? (double)(now - (uint64_t)at_us) / 1e6 : 0;
    return (uint64_t)(stored < 0 ? 0 : stored) + (uint64_t)(passed_s * (power_mw < 0 ? 0 : (double)power_mw));
}

API int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (t.kind != KIND_GPU) return api_leave(NOT_SUPPORTED);
    *out = energy_mj(t.gpu);
    return api_leave(OK);
}

static uint64_t ecc_errors(const struct json *gpu, int type) { /* type 1: uncorrected */
    int64_t n = json_int(json_get(gpu, "ecc"), type == 1 ? "dbe_vol" : "sbe_vol", 0);
    return n < 0 ? 0 : (uint64_t)n;
}

API int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *out) {
    (void)counter;
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (t.kind != KIND_GPU) return api_leave(NOT_SUPPORTED);
    *out = ecc_errors(t.gpu, type);
    return api_leave(OK);
}

API int nvmlDeviceGetMemoryErrorCounter(void *device, int type, int counter, int location, unsigned long long *out) {
    (void)location;
    return nvmlDeviceGetTotalEccErrors(device, type, counter, out);
}

static unsigned remapped(const struct json *gpu, int which) {
    const struct json *row = json_first(gpu, "remap");
    for (int i = 0; row && i < which; i++) row = row->next;
    return row && row->kind == JSON_NUMBER && row->number > 0 ? (unsigned)row->number : 0;
}

API int nvmlDeviceGetRemappedRows(void *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (t.kind != KIND_GPU || (has_mig(&t) && json_first(t.gpu, "gis"))) return api_leave(NOT_SUPPORTED);
    *corrected = remapped(t.gpu, 0);
    *uncorrected = remapped(t.gpu, 1);
    *pending = remapped(t.gpu, 2);
    *failed = remapped(t.gpu, 3);
    return api_leave(OK);
}

API int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    int64_t reasons = json_int(t.gpu, "reasons", -1);
    if (t.kind != KIND_GPU || reasons < 0) return api_leave(NOT_SUPPORTED);
    *out = (uint64_t)reasons;
    return api_leave(OK);
}

API int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *out) { return nvmlDeviceGetCurrentClocksEventReasons(device, out); }

API int nvmlDeviceGetClockInfo(void *device, int type, unsigned *out) { (void)type; return constant(__func__, device, 1410, (int *)out); }
API int nvmlDeviceGetMaxClockInfo(void *device, int type, unsigned *out) { (void)type; return constant(__func__, device, 1410, (int *)out); }

/* One value per field id; a field that is not simulated says so in its own status. */
static void fill_field(const struct target *t, field_value *field) {
    uint64_t value = 0;
    field->timestamp = (long long)now_us();
    field->type = 3;
    field->ret = t->kind == KIND_GPU ? OK : NOT_SUPPORTED;
    if (field->id == 3 || field->id == 4) value = ecc_errors(t->gpu, field->id == 4);
    else if (field->id == 83) value = energy_mj(t->gpu);
    else if (field->id >= 142 && field->id <= 145) value = remapped(t->gpu, (int)field->id - 142);
    else if (field->id == 185 || field->id == 186) value = (uint64_t)json_int(t->gpu, "power_mw", 0);
    else if (field->id == 230) value = (uint64_t)json_int(t->gpu, "recovery", 0);
    else field->ret = NOT_SUPPORTED;
    field->value = field->ret ? 0 : value;
}

API int nvmlDeviceGetFieldValues(void *device, int count, field_value *fields) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (count < 1 || !fields) return api_leave(INVALID_ARGUMENT);
    for (int i = 0; i < count; i++) fill_field(&t, &fields[i]);
    return api_leave(OK);
}

API int nvmlDeviceGetTopologyCommonAncestor(void *first, void *second, int *out) {
    ENTER(first);
    struct target a, b;
    FIND(first, &a);
    FIND(second, &b);
    *out = a.gpu == b.gpu ? 0 : 40; /* the same board, else one NUMA node */
    return api_leave(OK);
}
