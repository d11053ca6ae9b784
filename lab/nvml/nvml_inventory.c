/* Which GPUs there are: handles, identity, and what is the same for every board of the lab. */
#define _GNU_SOURCE
#include "nvml.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define UUID_LENGTH 96

struct json *nth_gpu(unsigned n, unsigned *count) {
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

static int give_gpu(const char *symbol, const struct json *gpu, void **out) {
    if (!gpu) return NOT_FOUND;
    const char *uuid = json_text(gpu, "uuid", "");
    int ret = fault_giving(symbol, uuid);
    if (ret) return ret;
    *out = handle_make(KIND_GPU, uuid, 0, 0);
    return *out ? OK : UNKNOWN;
}

API int nvmlDeviceGetCount_v2(unsigned *out) { ENTER(NULL); nth_gpu(0, out); return api_leave(OK); }

API int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) {
    ENTER(NULL);
    struct json *gpu = nth_gpu(index, NULL);
    return api_leave(gpu ? give_gpu(__func__, gpu, out) : INVALID_ARGUMENT);
}

/* A MIG device is named by its UUID or, as drivers before 470 named it, MIG-GPU-<uuid>/<gi>/<ci>. */
static int find_mig(const struct json *gpu, const char *uuid, void **out) {
    const char *gpu_uuid = json_text(gpu, "uuid", "");
    char text[UUID_TEXT], legacy[UUID_LENGTH + 32];
    for (struct json *gi = json_first(gpu, "gis"); gi; gi = gi->next)
        for (struct json *ci = json_first(gi, "cis"); ci; ci = ci->next) {
            unsigned gi_id = (unsigned)json_int(gi, "id", 0), ci_id = (unsigned)json_int(ci, "id", 0);
            mig_uuid(gpu_uuid, gi_id, ci_id, text);
            snprintf(legacy, sizeof legacy, "MIG-%.95s/%u/%u", gpu_uuid, gi_id, ci_id);
            if (strcasecmp(text, uuid) != 0 && strcasecmp(legacy, uuid) != 0) continue;
            if (!state_visible(text) && !state_visible(gpu_uuid)) continue;
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
    else if (gpu && state_gpu_visible(gpu)) ret = give_gpu(__func__, gpu, out);
    for (gpu = json_first(state_root(), "gpus"); ret == NOT_FOUND && gpu; gpu = gpu->next) ret = find_mig(gpu, uuid, out);
    return api_leave(ret);
}

/* The domain may be written with four digits, as Linux does, or eight, as NVML does. */
static int same_bus(const char *mine, const char *asked) {
    size_t longer = strlen(mine), shorter = strlen(asked);
    if (longer == shorter + 4 && strncmp(mine, "0000", 4) == 0) mine += 4;
    return strcasecmp(mine, asked) == 0;
}

API int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **out) {
    ENTER(NULL);
    struct json *gpu;
    for (unsigned i = 0; (gpu = nth_gpu(i, NULL)); i++)
        if (bus && same_bus(json_text(gpu, "pci", ""), bus)) break;
    return api_leave(give_gpu(__func__, gpu, out));
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

/* The same for all A100 and H100 boards in the lab. */
int gpu_constant(const char *symbol, void *device, int value, int *out) {
    int entered = api_enter(symbol, device);
    if (entered) return entered;
    struct target t;
    FIND(device, &t);
    *out = value;
    return api_leave(OK);
}

#define CONSTANT(function, value) \
    API int function(void *device, int *out) { return gpu_constant(__func__, device, value, out); }

CONSTANT(nvmlDeviceGetEnforcedPowerLimit, 400000)
CONSTANT(nvmlDeviceGetPowerManagementLimit, 400000)
CONSTANT(nvmlDeviceGetPerformanceState, 0)
CONSTANT(nvmlDeviceGetPersistenceMode, 1)
CONSTANT(nvmlDeviceGetComputeMode, 0)
CONSTANT(nvmlDeviceGetDisplayActive, 0)
CONSTANT(nvmlDeviceGetDisplayMode, 0)

API int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    *major = strncmp(t.set, "h100", 4) == 0 ? 9 : 8;
    *minor = 0;
    return api_leave(OK);
}

/* SOURCE: NVML, nvmlDeviceGetDriverModel_v2: Windows only. */
API int nvmlDeviceGetDriverModel_v2(void *device, unsigned *current, unsigned *pending) {
    (void)current, (void)pending;
    ENTER(device);
    return api_leave(NOT_SUPPORTED);
}

API int nvmlDeviceGetClockInfo(void *device, int type, unsigned *out) {
    (void)type;
    return gpu_constant(__func__, device, 1410, (int *)out);
}

API int nvmlDeviceGetMaxClockInfo(void *device, int type, unsigned *out) {
    (void)type;
    return gpu_constant(__func__, device, 1410, (int *)out);
}
