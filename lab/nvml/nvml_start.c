/* libnvidia-ml.so.1: start and end of a session, handles, faults at the entry of each call, versions, error texts. */
#define _GNU_SOURCE
#include "nvml.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

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

static volatile sig_atomic_t deferred;
static void defer(int number) { deferred = number; }

/* Deaf calls under way, in all threads: the first puts SIGTERM off, the last lets it come. */
static pthread_mutex_t deaf_mutex = PTHREAD_MUTEX_INITIALIZER;
static int deaf_calls;
static struct sigaction before_deaf;

static int deaf_left(void) {
    pthread_mutex_lock(&deaf_mutex);
    int left = deaf_calls;
    pthread_mutex_unlock(&deaf_mutex);
    return left;
}

/* As a driver call hangs: for one thread and not for the process. A deaf one stands for a thread in D state: once SIGTERM
 * came no thread returns from one, and the process ends when the last is over; SIGKILL still ends this one at once. */
static void hang(const struct fault *fault) {
    if (!fault->deaf) { sleep_ms(fault->hang_ms); return; }
    struct sigaction later = {.sa_handler = defer};
    pthread_mutex_lock(&deaf_mutex);
    if (deaf_calls++ == 0) sigaction(SIGTERM, &later, &before_deaf);
    pthread_mutex_unlock(&deaf_mutex);
    sleep_ms(fault->hang_ms);
    pthread_mutex_lock(&deaf_mutex);
    int left = --deaf_calls;
    if (!left) sigaction(SIGTERM, &before_deaf, NULL);
    pthread_mutex_unlock(&deaf_mutex);
    if (!left && deferred) { deferred = 0; raise(SIGTERM); }
    while (left && deferred) sleep_ms(10);
}

/* Nor does a process go while a thread of it is in D state, though its program has ended. */
__attribute__((destructor)) static void leave_nobody_behind(void) { while (deaf_left()) sleep_ms(10); }

int api_leave(int ret) { state_leave(); return ret; }

int api_enter(const char *symbol, const void *handle) {
    uintptr_t slot = (uintptr_t)handle >> 16 & 0xFFF;
    state_enter();
    int starting = strncmp(symbol, "nvmlInit", 8) == 0;
    struct fault fault = fault_meet(symbol, slot && slot <= MAX_GPUS ? known[slot - 1] : NULL);
    if (fault.hang_ms > 0) {
        state_leave();
        hang(&fault);
        state_enter();
    }
    int ret = fault.ret;
    if (!ret && !state_root()) ret = DRIVER_NOT_LOADED;
    if (!ret && !users && !starting) ret = UNINITIALIZED;
    if (ret) state_leave();
    return ret;
}

int copy_text(char *out, unsigned length, const char *text) {
    if (!out) return INVALID_ARGUMENT;
    if (strlen(text) + 1 > length) return INSUFFICIENT_SIZE;
    memcpy(out, text, strlen(text) + 1);
    return OK;
}

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
