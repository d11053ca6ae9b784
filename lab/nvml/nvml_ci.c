/* Compute instances; their profile ids are the enum indices 0..4 for 1, 2, 3, 4 and 7 slices. */
#define _GNU_SOURCE
#include "nvml.h"

#include <stdio.h>

#define CI_ENUMS 5
#define ENGINE_SHARED 0

static const unsigned SLICES[CI_ENUMS] = {1, 2, 3, 4, 7};

unsigned ci_slices(unsigned ci_profile) { return ci_profile < CI_ENUMS ? SLICES[ci_profile] : 0; }

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
    int ret = change_begin(gi, KIND_GI, &t);
    if (ret) return api_leave(ret);
    unsigned slices = ci_fits_gi(&t, profile);
    if (!slices) return change_end(INVALID_ARGUMENT);
    unsigned start = ci_start(compute_taken(t.gi), slices, gi_profile(&t)->compute);
    if (start == 8) return change_end(INSUFFICIENT_RESOURCES);
    unsigned id = free_ci_id(t.gi);
    *out = handle_make(KIND_CI, t.uuid, t.gi_id, id);
    return change_end(add_ci(&t, id, profile, start));
}

API int nvmlComputeInstanceDestroy(void *ci) {
    ENTER(ci);
    struct target t;
    int ret = change_begin(ci, KIND_CI, &t);
    if (ret) return api_leave(ret);
    if (in_use(&t, t.gi_id, t.ci_id)) return change_end(IN_USE);
    json_remove(json_get(t.gi, "cis"), t.ci);
    return change_end(OK);
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
