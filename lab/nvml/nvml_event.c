/* NVML's event sets: each waits for the GPUs it registered and hears every event once. */
#define _POSIX_C_SOURCE 200809L
#include "nvml.h"

#include <string.h>
#include <time.h>

#define MAX_SETS 16
#define POLL_NS 20000000L
#define MAX_REGISTERED MAX_GPUS
#define SUPPORTED 0xBULL /* single and double bit ECC, XID */

static struct event_set {
    int used, count;
    int64_t heard; /* id of the last event that was delivered or passed over */
    struct { char uuid[96]; unsigned long long types; } gpu[MAX_REGISTERED];
} sets[MAX_SETS];

static struct event_set *set_of(void *handle) {
    uintptr_t number = (uintptr_t)handle;
    return number >= 1 && number <= MAX_SETS && sets[number - 1].used ? &sets[number - 1] : NULL;
}

static int64_t newest(void) {
    int64_t id = 0;
    for (struct json *e = json_first(state_root(), "events"); e; e = e->next)
        if (json_int(e, "id", 0) > id) id = json_int(e, "id", 0);
    return id;
}

API int nvmlEventSetCreate(void **out) {
    ENTER(NULL);
    for (uintptr_t i = 0; i < MAX_SETS; i++) {
        if (sets[i].used) continue;
        sets[i] = (struct event_set){.used = 1, .heard = newest()};
        *out = (void *)(i + 1);
        return api_leave(OK);
    }
    return api_leave(INSUFFICIENT_RESOURCES);
}

API int nvmlEventSetFree(void *handle) {
    ENTER(NULL);
    struct event_set *set = set_of(handle);
    if (set) set->used = 0;
    return api_leave(set ? OK : INVALID_ARGUMENT);
}

API int nvmlDeviceGetSupportedEventTypes(void *device, unsigned long long *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    *out = t.kind == KIND_GPU ? SUPPORTED : 0;
    return api_leave(OK);
}

API int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *handle) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    struct event_set *set = set_of(handle);
    if (!set) return api_leave(INVALID_ARGUMENT);
    if (t.kind != KIND_GPU || types & ~SUPPORTED) return api_leave(NOT_SUPPORTED);
    if (set->count == MAX_REGISTERED) return api_leave(INSUFFICIENT_RESOURCES);
    memcpy(set->gpu[set->count].uuid, t.uuid, strlen(t.uuid) + 1);
    set->gpu[set->count++].types = types;
    return api_leave(OK);
}

static int wants(const struct event_set *set, const struct json *event) {
    for (int i = 0; i < set->count; i++)
        if (strcmp(set->gpu[i].uuid, json_text(event, "gpu", "")) == 0 &&
            set->gpu[i].types & (unsigned long long)json_int(event, "type", 0)) return 1;
    return 0;
}

/* The oldest event not heard yet; 1 if there was one. */
static int next_event(struct event_set *set, event_data *out) {
    const struct json *oldest = NULL;
    for (struct json *e = json_first(state_root(), "events"); e; e = e->next) {
        int64_t id = json_int(e, "id", 0);
        if (id > set->heard && wants(set, e) && (!oldest || id < json_int(oldest, "id", 0))) oldest = e;
    }
    if (!oldest) return 0;
    set->heard = json_int(oldest, "id", 0);
    *out = (event_data){.device = handle_make(KIND_GPU, json_text(oldest, "gpu", ""), 0, 0),
                        .type = (unsigned long long)json_int(oldest, "type", 0),
                        .data = (unsigned long long)json_int(oldest, "data", 0),
                        .gi = (unsigned)json_int(oldest, "gi", NO_INSTANCE), .ci = (unsigned)json_int(oldest, "ci", NO_INSTANCE)};
    return 1;
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

API int nvmlEventSetWait_v2(void *handle, event_data *out, unsigned timeout_ms) {
    ENTER(NULL);
    for (int64_t end = now_ms() + timeout_ms;;) {
        struct event_set *set = set_of(handle);
        if (!set) return api_leave(INVALID_ARGUMENT);
        if (next_event(set, out)) return api_leave(OK);
        if (now_ms() >= end) return api_leave(TIMEOUT);
        state_leave();
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        state_enter();
    }
}
