/* GPU instances: their profiles and placements, made and unmade. */
#define _GNU_SOURCE
#include "nvml.h"

#include <stdio.h>

const struct profile *gi_profile(const struct target *t) { return mig_profile(t->set, (unsigned)json_int(t->gi, "profile", -1)); }

static int profile_of(const struct target *t, unsigned slice, unsigned id, int by_slice, const struct profile **out) {
    const struct profile *table = t->kind == KIND_GPU && has_mig(t) ? mig_profiles(t->set) : NULL;
    if (!table) return NOT_SUPPORTED;
    for (int i = 0; i < PROFILES; i++)
        if (by_slice ? table[i].slice == slice : table[i].id == id) { *out = &table[i]; return OK; }
    return by_slice ? NOT_SUPPORTED : INVALID_ARGUMENT;
}

/* Begins a call about one profile of a GPU; what fails has left the call. */
static int begin(const char *symbol, void *device, unsigned id, struct target *t, const struct profile **p) {
    int ret = api_enter(symbol, device);
    if (ret) return ret;
    ret = handle_find(device, t);
    if (!ret) ret = profile_of(t, 0, id, 0, p);
    return ret ? api_leave(ret) : OK;
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
    struct target t;
    const struct profile *p;
    int ret = begin(__func__, device, id, &t, &p);
    if (ret) return ret;
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
    struct target t;
    const struct profile *p;
    int ret = begin(__func__, device, id, &t, &p);
    if (ret) return ret;
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

struct json *list_of(struct json *object, const char *key) {
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
    ret = change_begin(device, KIND_GPU, &t);
    if (ret) return api_leave(ret);
    ret = profile_of(&t, 0, id, 0, &p);
    if (ret) return change_end(ret);
    struct taken taken = taken_on(&t);
    unsigned start = wanted ? wanted->start : 0;
    while (!wanted && start < 8 && !fits(&taken, p, start)) start++;
    if (wanted && (wanted->size != p->size || start > 7 || !(p->starts >> start & 1))) return change_end(INVALID_ARGUMENT);
    if (!fits(&taken, p, start)) return change_end(INSUFFICIENT_RESOURCES);
    *out = handle_make(KIND_GI, t.uuid, mig_tree_node(start, p->size), 0);
    return change_end(add_gi(&t, p, start));
}

API int nvmlDeviceCreateGpuInstance(void *device, unsigned id, void **out) { return create_gi(__func__, device, id, NULL, out); }
API int nvmlDeviceCreateGpuInstanceWithPlacement(void *device, unsigned id, const placement *wanted, void **out) {
    return wanted ? create_gi(__func__, device, id, wanted, out) : INVALID_ARGUMENT;
}

API int nvmlGpuInstanceDestroy(void *gi) {
    ENTER(gi);
    struct target t;
    int ret = change_begin(gi, KIND_GI, &t);
    if (ret) return api_leave(ret);
    if (json_first(t.gi, "cis") || in_use(&t, t.gi_id, NO_INSTANCE)) return change_end(IN_USE);
    json_remove(json_get(t.gpu, "gis"), t.gi);
    return change_end(OK);
}

API int nvmlDeviceGetGpuInstances(void *device, unsigned id, void **out, unsigned *count) {
    struct target t;
    const struct profile *p;
    int ret = begin(__func__, device, id, &t, &p);
    if (ret) return ret;
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
