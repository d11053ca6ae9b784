/* MIG through NVML: mode, devices, GPU instances and compute instances, made and unmade under the lock. */
#define _GNU_SOURCE
#include "nvml.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_MIG_DEVICES 7
#define MAX_PROCESSES 1024
#define CI_ENUMS 5
#define ENGINE_SHARED 0

static const unsigned SLICES[CI_ENUMS] = {1, 2, 3, 4, 7};

const struct profile *gi_profile(const struct target *t) { return mig_profile(t->set, (unsigned)json_int(t->gi, "profile", -1)); }
unsigned ci_slices(unsigned ci_profile) { return ci_profile < CI_ENUMS ? SLICES[ci_profile] : 0; }

/* --- mode --- */

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

/* Takes the lock for a change and finds the target afresh: what was found before may be gone. */
static int change(const void *handle, enum handle_kind kind, struct target *t) {
    if (geteuid() != 0) return NO_PERMISSION;
    if (state_lock() != 0) return NO_PERMISSION;
    int ret = handle_find(handle, t);
    if (!ret && t->kind != kind) ret = INVALID_ARGUMENT;
    if (ret) state_abandon();
    return ret;
}

static int finish(int ret) {
    if (ret) state_abandon();
    else if (state_commit() != 0) ret = UNKNOWN;
    return api_leave(ret);
}

static int busy(const struct target *t, unsigned gi, unsigned ci) { /* NO_INSTANCE: any */
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
    int ret = change(device, KIND_GPU, &t);
    if (ret) return api_leave(ret);
    struct json *mig = json_get(t.gpu, "mig");
    if (!mig || mig->kind != JSON_OBJECT || !mig_profiles(t.set)) return finish(NOT_SUPPORTED);
    *status = busy(&t, NO_INSTANCE, NO_INSTANCE) || (!mode && json_first(t.gpu, "gis")) ? IN_USE : OK;
    json_set_int(mig, "pending", mode);
    if (!*status) json_set_int(mig, "current", mode);
    return finish(OK);
}

/* --- MIG devices --- */

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

/* --- GPU instances --- */

static int profile_of(const struct target *t, unsigned slice, unsigned id, int by_slice, const struct profile **out) {
    const struct profile *table = t->kind == KIND_GPU && has_mig(t) ? mig_profiles(t->set) : NULL;
    if (!table) return NOT_SUPPORTED;
    for (int i = 0; i < PROFILES; i++)
        if (by_slice ? table[i].slice == slice : table[i].id == id) { *out = &table[i]; return OK; }
    return by_slice ? NOT_SUPPORTED : INVALID_ARGUMENT;
}

static int describe(const char *symbol, void *device, unsigned slice, unsigned id, int by_slice, gi_profile_v1 *v1, gi_profile_v2 *v2) {
    int entered = api_enter(symbol, device);
    if (entered) return entered;
    struct target t;
    const struct profile *p = NULL;
    FIND(device, &t);
    if (v2 && v2->version != NVML_VERSION(gi_profile_v2, 2)) return api_leave(VERSION_MISMATCH);
    int ret = profile_of(&t, slice, id, by_slice, &p);
    if (ret) return api_leave(ret);
    if (v1)
        *v1 = (gi_profile_v1){.id = p->id, .slices = p->compute, .instances = p->max, .sm = p->sm, .copy = p->compute,
                              .decoder = p->size / 2, .jpeg = p->media, .ofa = p->media, .mib = p->mib};
    if (v2) {
        *v2 = (gi_profile_v2){.version = v2->version, .id = p->id, .slices = p->compute, .instances = p->max, .sm = p->sm,
                              .copy = p->compute, .decoder = p->size / 2, .jpeg = p->media, .ofa = p->media, .mib = p->mib};
        snprintf(v2->name, sizeof v2->name, "MIG %s", p->name);
    }
    return api_leave(OK);
}

API int nvmlDeviceGetGpuInstanceProfileInfo(void *device, unsigned slice, gi_profile_v1 *out) {
    return describe(__func__, device, slice, 0, 1, out, NULL);
}
API int nvmlDeviceGetGpuInstanceProfileInfoV(void *device, unsigned slice, gi_profile_v2 *out) {
    return describe(__func__, device, slice, 0, 1, NULL, out);
}
API int nvmlDeviceGetGpuInstanceProfileInfoByIdV(void *device, unsigned id, gi_profile_v2 *out) {
    return describe(__func__, device, 0, id, 0, NULL, out);
}

API int nvmlDeviceGetGpuInstancePossiblePlacements_v2(void *device, unsigned id, placement *out, unsigned *count) {
    ENTER(device);
    struct target t;
    const struct profile *p = NULL;
    FIND(device, &t);
    int ret = profile_of(&t, 0, id, 0, &p);
    if (ret) return api_leave(ret);
    unsigned n = 0, room = out ? *count : 8;
    for (unsigned start = 0; start < 8; start++) {
        if (!(p->starts >> start & 1)) continue;
        if (n == room) return api_leave(INSUFFICIENT_SIZE);
        if (out) out[n] = (placement){.start = start, .size = p->size};
        n++;
    }
    *count = n;
    return api_leave(OK);
}

/* What is taken now: memory slices as bits, compute slices as a sum, media engines. */
struct taken { unsigned memory, compute, media; };

static struct taken taken_on(const struct target *t) {
    struct taken all = {0};
    for (struct json *gi = json_first(t->gpu, "gis"); gi; gi = gi->next) {
        const struct profile *p = mig_profile(t->set, (unsigned)json_int(gi, "profile", -1));
        int64_t start = json_int(gi, "start", -1);
        if (!p || start < 0 || start > 7) { all.memory = 0xFF; continue; } /* unknown is never free */
        all.memory |= ((1U << p->size) - 1) << start;
        all.compute += p->compute;
        all.media += p->media;
    }
    return all;
}

static int fits(const struct taken *taken, const struct profile *p, unsigned start) {
    return start < 8 && p->starts >> start & 1 && !(taken->memory & ((1U << p->size) - 1) << start) &&
           taken->compute + p->compute <= 7 && taken->media + p->media <= 1;
}

API int nvmlDeviceGetGpuInstanceRemainingCapacity(void *device, unsigned id, unsigned *out) {
    ENTER(device);
    struct target t;
    const struct profile *p = NULL;
    FIND(device, &t);
    int ret = profile_of(&t, 0, id, 0, &p);
    if (ret) return api_leave(ret);
    struct taken taken = taken_on(&t);
    unsigned n = 0;
    for (unsigned start = 0; start < 8; start++) {
        if (!fits(&taken, p, start)) continue;
        taken.memory |= ((1U << p->size) - 1) << start;
        taken.compute += p->compute;
        taken.media += p->media;
        n++;
    }
    *out = n;
    return api_leave(OK);
}

static struct json *list_of(struct json *object, const char *key) {
    struct json *list = json_get(object, key);
    return list && list->kind == JSON_ARRAY ? list : json_put(object, key, json_new(JSON_ARRAY));
}

static int add_gi(const struct target *t, const struct profile *p, unsigned start) {
    struct json *gi = json_append(list_of(t->gpu, "gis"), json_new(JSON_OBJECT));
    if (!gi) return UNKNOWN;
    json_set_int(gi, "id", mig_tree_node(start, p->size));
    json_set_int(gi, "profile", p->id);
    json_set_int(gi, "start", start);
    json_set_int(gi, "size", p->size);
    return list_of(gi, "cis") ? OK : UNKNOWN;
}

static int create_gi(const char *symbol, void *device, unsigned id, const placement *wanted, void **out) {
    int ret = api_enter(symbol, device);
    if (ret) return ret;
    struct target t;
    const struct profile *p = NULL;
    ret = change(device, KIND_GPU, &t);
    if (ret) return api_leave(ret);
    ret = profile_of(&t, 0, id, 0, &p);
    if (ret) return finish(ret);
    struct taken taken = taken_on(&t);
    unsigned start = wanted ? wanted->start : 0;
    while (!wanted && start < 8 && !fits(&taken, p, start)) start++;
    if (wanted && (wanted->size != p->size || start > 7 || !(p->starts >> start & 1))) return finish(INVALID_ARGUMENT);
    if (!fits(&taken, p, start)) return finish(INSUFFICIENT_RESOURCES);
    *out = handle_make(KIND_GI, t.uuid, mig_tree_node(start, p->size), 0);
    return finish(add_gi(&t, p, start));
}

API int nvmlDeviceCreateGpuInstance(void *device, unsigned id, void **out) { return create_gi(__func__, device, id, NULL, out); }
API int nvmlDeviceCreateGpuInstanceWithPlacement(void *device, unsigned id, const placement *wanted, void **out) {
    return wanted ? create_gi(__func__, device, id, wanted, out) : INVALID_ARGUMENT;
}

API int nvmlGpuInstanceDestroy(void *gi) {
    ENTER(gi);
    struct target t;
    int ret = change(gi, KIND_GI, &t);
    if (ret) return api_leave(ret);
    if (json_first(t.gi, "cis") || busy(&t, t.gi_id, NO_INSTANCE)) return finish(IN_USE);
    json_remove(json_get(t.gpu, "gis"), t.gi);
    return finish(OK);
}

API int nvmlDeviceGetGpuInstances(void *device, unsigned id, void **out, unsigned *count) {
    ENTER(device);
    struct target t;
    const struct profile *p = NULL;
    FIND(device, &t);
    int ret = profile_of(&t, 0, id, 0, &p);
    if (ret) return api_leave(ret);
    unsigned n = 0;
    for (struct json *gi = json_first(t.gpu, "gis"); gi && n < p->max; gi = gi->next)
        if (json_int(gi, "profile", -1) == (int64_t)id) out[n++] = handle_make(KIND_GI, t.uuid, (unsigned)json_int(gi, "id", 0), 0);
    *count = n;
    return api_leave(OK);
}

API int nvmlDeviceGetGpuInstanceById(void *device, unsigned id, void **out) {
    ENTER(device);
    struct target t, found;
    FIND(device, &t);
    if (t.kind != KIND_GPU || !has_mig(&t)) return api_leave(NOT_SUPPORTED);
    void *handle = id < 256 ? handle_make(KIND_GI, t.uuid, id, 0) : NULL;
    if (!handle || handle_find(handle, &found) != OK) return api_leave(NOT_FOUND);
    *out = handle;
    return api_leave(OK);
}

API int nvmlGpuInstanceGetInfo(void *gi, gi_info *out) {
    ENTER(gi);
    struct target t;
    FIND(gi, &t);
    if (t.kind != KIND_GI) return api_leave(INVALID_ARGUMENT);
    *out = (gi_info){.device = handle_make(KIND_GPU, t.uuid, 0, 0), .id = t.gi_id, .profile = (unsigned)json_int(t.gi, "profile", 0),
                     .place = {.start = (unsigned)json_int(t.gi, "start", 0), .size = (unsigned)json_int(t.gi, "size", 0)}};
    return api_leave(OK);
}

/* --- compute instances: profile ids are the enum indices 0..4 for 1, 2, 3, 4 and 7 slices --- */

/* Slices of `profile` inside this GPU instance; 0 if it has no such compute profile. */
static unsigned ci_fits_gi(const struct target *t, unsigned profile) {
    const struct profile *gi = t->kind == KIND_GI ? gi_profile(t) : NULL;
    unsigned slices = ci_slices(profile);
    return gi && slices <= gi->compute ? slices : 0;
}

static int describe_ci(const char *symbol, void *gi, unsigned index, unsigned engine, ci_profile_v1 *v1, ci_profile_v2 *v2) {
    int entered = api_enter(symbol, gi);
    if (entered) return entered;
    struct target t;
    FIND(gi, &t);
    if (v2 && v2->version != NVML_VERSION(ci_profile_v2, 2)) return api_leave(VERSION_MISMATCH);
    unsigned slices = engine == ENGINE_SHARED ? ci_fits_gi(&t, index) : 0;
    if (!slices) return api_leave(NOT_SUPPORTED);
    const struct profile *p = gi_profile(&t);
    unsigned sm = p->sm * slices / p->compute, most = p->compute / slices;
    if (v1) *v1 = (ci_profile_v1){.id = index, .slices = slices, .instances = most, .sm = sm, .copy = p->compute};
    if (v2) {
        *v2 = (ci_profile_v2){.version = v2->version, .id = index, .slices = slices, .instances = most, .sm = sm, .copy = p->compute};
        if (slices == p->compute) snprintf(v2->name, sizeof v2->name, "MIG %s", p->name);
        else snprintf(v2->name, sizeof v2->name, "MIG %uc.%s", slices, p->name);
    }
    return api_leave(OK);
}

API int nvmlGpuInstanceGetComputeInstanceProfileInfo(void *gi, unsigned index, unsigned engine, ci_profile_v1 *out) {
    return describe_ci(__func__, gi, index, engine, out, NULL);
}
API int nvmlGpuInstanceGetComputeInstanceProfileInfoV(void *gi, unsigned index, unsigned engine, ci_profile_v2 *out) {
    return describe_ci(__func__, gi, index, engine, NULL, out);
}

static unsigned compute_taken(const struct json *gi) { /* compute slices of the GPU instance, as bits */
    unsigned bits = 0;
    for (struct json *ci = json_first(gi, "cis"); ci; ci = ci->next) {
        int64_t start = json_int(ci, "start", 0);
        unsigned slices = ci_slices((unsigned)json_int(ci, "profile", -1));
        bits |= start < 0 || start > 7 || !slices ? 0xFF : ((1U << slices) - 1) << start;
    }
    return bits;
}

/* The first free start, or 8. */
static unsigned ci_start(unsigned taken, unsigned slices, unsigned within) {
    for (unsigned start = 0; start + slices <= within; start++)
        if (!(taken & ((1U << slices) - 1) << start)) return start;
    return 8;
}

API int nvmlGpuInstanceGetComputeInstanceRemainingCapacity(void *gi, unsigned profile, unsigned *out) {
    ENTER(gi);
    struct target t;
    FIND(gi, &t);
    unsigned slices = ci_fits_gi(&t, profile), n = 0, start;
    if (!slices) return api_leave(INVALID_ARGUMENT);
    for (unsigned taken = compute_taken(t.gi); (start = ci_start(taken, slices, gi_profile(&t)->compute)) < 8; n++)
        taken |= ((1U << slices) - 1) << start;
    *out = n;
    return api_leave(OK);
}

static int index_used(const struct json *gpu, int64_t index) {
    for (struct json *gi = json_first(gpu, "gis"); gi; gi = gi->next)
        for (struct json *ci = json_first(gi, "cis"); ci; ci = ci->next)
            if (json_int(ci, "index", -1) == index) return 1;
    return 0;
}

static unsigned free_ci_id(const struct json *gi) {
    unsigned id = 0;
    for (struct json *ci = json_first(gi, "cis"); ci;) {
        if (json_int(ci, "id", -1) != (int64_t)id) { ci = ci->next; continue; }
        id++;
        ci = json_first(gi, "cis");
    }
    return id;
}

static int add_ci(const struct target *t, unsigned id, unsigned profile, unsigned start) {
    int64_t index = 0;
    while (index_used(t->gpu, index)) index++;
    struct json *ci = json_append(list_of(t->gi, "cis"), json_new(JSON_OBJECT));
    if (!ci) return UNKNOWN;
    json_set_int(ci, "id", id);
    json_set_int(ci, "profile", profile);
    json_set_int(ci, "start", start);
    return json_set_int(ci, "index", index) ? OK : UNKNOWN;
}

API int nvmlGpuInstanceCreateComputeInstance(void *gi, unsigned profile, void **out) {
    ENTER(gi);
    struct target t;
    int ret = change(gi, KIND_GI, &t);
    if (ret) return api_leave(ret);
    unsigned slices = ci_fits_gi(&t, profile);
    if (!slices) return finish(INVALID_ARGUMENT);
    unsigned start = ci_start(compute_taken(t.gi), slices, gi_profile(&t)->compute);
    if (start == 8) return finish(INSUFFICIENT_RESOURCES);
    unsigned id = free_ci_id(t.gi);
    *out = handle_make(KIND_CI, t.uuid, t.gi_id, id);
    return finish(add_ci(&t, id, profile, start));
}

API int nvmlComputeInstanceDestroy(void *ci) {
    ENTER(ci);
    struct target t;
    int ret = change(ci, KIND_CI, &t);
    if (ret) return api_leave(ret);
    if (busy(&t, t.gi_id, t.ci_id)) return finish(IN_USE);
    json_remove(json_get(t.gi, "cis"), t.ci);
    return finish(OK);
}

API int nvmlGpuInstanceGetComputeInstances(void *gi, unsigned profile, void **out, unsigned *count) {
    ENTER(gi);
    struct target t;
    FIND(gi, &t);
    unsigned n = 0;
    if (!ci_fits_gi(&t, profile)) return api_leave(INVALID_ARGUMENT);
    for (struct json *ci = json_first(t.gi, "cis"); ci && n < 7; ci = ci->next)
        if (json_int(ci, "profile", -1) == (int64_t)profile) out[n++] = handle_make(KIND_CI, t.uuid, t.gi_id, (unsigned)json_int(ci, "id", 0));
    *count = n;
    return api_leave(OK);
}

API int nvmlGpuInstanceGetComputeInstanceById(void *gi, unsigned id, void **out) {
    ENTER(gi);
    struct target t, found;
    FIND(gi, &t);
    void *handle = t.kind == KIND_GI && id < 256 ? handle_make(KIND_CI, t.uuid, t.gi_id, id) : NULL;
    if (!handle || handle_find(handle, &found) != OK) return api_leave(NOT_FOUND);
    *out = handle;
    return api_leave(OK);
}

API int nvmlComputeInstanceGetInfo_v2(void *ci, ci_info *out) {
    ENTER(ci);
    struct target t;
    FIND(ci, &t);
    if (t.kind != KIND_CI) return api_leave(INVALID_ARGUMENT);
    unsigned profile = (unsigned)json_int(t.ci, "profile", 0);
    *out = (ci_info){.device = handle_make(KIND_GPU, t.uuid, 0, 0), .gi = handle_make(KIND_GI, t.uuid, t.gi_id, 0), .id = t.ci_id,
                     .profile = profile, .place = {.start = (unsigned)json_int(t.ci, "start", 0), .size = ci_slices(profile)}};
    return api_leave(OK);
}
