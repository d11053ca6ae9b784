/* MIG mode and MIG devices; and how every change of MIG is made: under the lock, and written back. */
#define _GNU_SOURCE
#include "nvml.h"

#include <limits.h>
#include <unistd.h>

#define MAX_MIG_DEVICES 7

int has_mig(const struct target *t) { return json_int(json_get(t->gpu, "mig"), "current", 0) == 1 && mig_profiles(t->set); }

API int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    struct json *mig = json_get(t.gpu, "mig");
    if (t.kind != KIND_GPU || !mig_profiles(t.set)) return api_leave(NOT_SUPPORTED);
    *current = json_int(mig, "current", 0) == 1;
    *pending = json_int(mig, "pending", *current) == 1;
    return api_leave(OK);
}

/* Root, or who may read the node of the capability mig/config, here a file of the state directory.
 * SOURCE: MIG User Guide, Device Nodes and Capabilities. */
static int may_change(void) {
    char capability[PATH_MAX];
    state_path(capability, "mig-config");
    return geteuid() == 0 || access(capability, R_OK) == 0;
}

/* What was found before the lock was taken may be gone. */
int change_begin(const void *handle, enum handle_kind kind, struct target *t) {
    if (!may_change()) return NO_PERMISSION;
    if (state_lock() != 0) return NO_PERMISSION;
    int ret = handle_find(handle, t);
    if (!ret && t->kind != kind) ret = INVALID_ARGUMENT;
    if (ret) state_abandon();
    return ret;
}

int change_end(int ret) {
    if (ret) state_abandon();
    else if (state_commit() != 0) ret = UNKNOWN;
    return api_leave(ret);
}

int in_use(const struct target *t, unsigned gi, unsigned ci) {
    static struct process all[MAX_PROCESSES];
    int n = state_processes(t->gpu, all, MAX_PROCESSES);
    for (int i = 0; i < n; i++)
        if ((gi == NO_INSTANCE || all[i].gi == gi) && (ci == NO_INSTANCE || all[i].ci == ci)) return 1;
    return 0;
}

/* SOURCE: NVML, nvmlDeviceSetMigMode: the call succeeds and the status says why the mode stays pending. */
API int nvmlDeviceSetMigMode(void *device, unsigned mode, int *status) {
    ENTER(device);
    struct target t;
    if (mode > 1) return api_leave(INVALID_ARGUMENT);
    int ret = change_begin(device, KIND_GPU, &t);
    if (ret) return api_leave(ret);
    struct json *mig = json_get(t.gpu, "mig");
    if (!mig || mig->kind != JSON_OBJECT || !mig_profiles(t.set)) return change_end(NOT_SUPPORTED);
    int used = in_use(&t, NO_INSTANCE, NO_INSTANCE) || (!mode && json_first(t.gpu, "gis"));
    *status = used ? IN_USE : json_int(mig, "needs_reset", 0) ? RESET_REQUIRED : OK;
    json_set_int(mig, "pending", mode);
    if (!*status) json_set_int(mig, "current", mode);
    return change_end(OK);
}

API int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    *out = has_mig(&t) ? MAX_MIG_DEVICES : 0;
    return api_leave(OK);
}

/* INVARIANT: an index without a device is a gap, NOT_FOUND; higher ones may exist. */
API int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (t.kind != KIND_GPU || !has_mig(&t)) return api_leave(NOT_SUPPORTED);
    if (index >= MAX_MIG_DEVICES) return api_leave(INVALID_ARGUMENT);
    int64_t ordinal = 0;
    for (struct json *gi = json_first(t.gpu, "gis"); gi; gi = gi->next)
        for (struct json *ci = json_first(gi, "cis"); ci; ci = ci->next, ordinal++) {
            unsigned gi_id = (unsigned)json_int(gi, "id", 0), ci_id = (unsigned)json_int(ci, "id", 0);
            char uuid[UUID_TEXT];
            if (json_int(ci, "index", ordinal) != (int64_t)index) continue;
            mig_uuid(t.uuid, gi_id, ci_id, uuid);
            if (!state_visible(uuid) && !state_visible(t.uuid)) continue;
            *out = handle_make(KIND_MIG, t.uuid, gi_id, ci_id);
            return api_leave(*out ? OK : UNKNOWN);
        }
    return api_leave(NOT_FOUND);
}

API int nvmlDeviceIsMigDeviceHandle(void *device, unsigned *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    *out = t.kind == KIND_MIG;
    return api_leave(OK);
}

API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *device, void **out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (t.kind != KIND_MIG) return api_leave(INVALID_ARGUMENT);
    *out = handle_make(KIND_GPU, t.uuid, 0, 0);
    return api_leave(OK);
}

static int instance_id(const char *symbol, void *device, int compute, unsigned *out) {
    int entered = api_enter(symbol, device);
    if (entered) return entered;
    struct target t;
    FIND(device, &t);
    if (t.kind != KIND_MIG) return api_leave(NOT_SUPPORTED);
    *out = compute ? t.ci_id : t.gi_id;
    return api_leave(OK);
}

API int nvmlDeviceGetGpuInstanceId(void *device, unsigned *out) { return instance_id(__func__, device, 0, out); }
API int nvmlDeviceGetComputeInstanceId(void *device, unsigned *out) { return instance_id(__func__, device, 1, out); }

API int nvmlDeviceGetAttributes_v2(void *device, attributes *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    const struct profile *profile = t.kind == KIND_MIG ? gi_profile(&t) : NULL;
    unsigned slices = profile ? ci_slices((unsigned)json_int(t.ci, "profile", -1)) : 0;
    if (!slices) return api_leave(NOT_SUPPORTED);
    *out = (attributes){.sm = profile->sm * slices / profile->compute, .copy = profile->compute, .gi_slices = profile->compute,
                        .ci_slices = slices, .mib = profile->mib};
    return api_leave(OK);
}
