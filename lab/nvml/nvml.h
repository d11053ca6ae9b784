/* The part of NVIDIA's NVML interface that is simulated: layouts and codes exactly as in nvml.h 12 and 13,
 * and what the files that answer it share. A handle is a number in a pointer (kind, GPU, GI, CI), checked
 * at each call against the state: a stale or invented one is an error code, never a crash.
 */
#ifndef DS01_SIM_NVML_H
#define DS01_SIM_NVML_H

#include "state.h"

#define API __attribute__((visibility("default")))
#define NVML_VERSION(type, n) ((unsigned)sizeof(type) | (unsigned)(n) << 24)

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, RESET_REQUIRED = 16, IN_USE = 19, INSUFFICIENT_RESOURCES = 23,
    VERSION_MISMATCH = 25, UNKNOWN = 999
};

enum handle_kind { KIND_GPU = 1, KIND_MIG, KIND_GI, KIND_CI };

typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_info;
typedef struct { unsigned pid; unsigned long long used; } process_info_v1;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_info;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; unsigned long long protected_memory; } process_detail;
typedef struct { unsigned version, mode, count; process_detail *processes; } process_details;
typedef struct { unsigned sm, copy, decoder, encoder, jpeg, ofa, gi_slices, ci_slices; unsigned long long mib; } attributes;
typedef struct { unsigned start, size; } placement;
typedef struct { void *device; unsigned id, profile; placement place; } gi_info;
typedef struct { void *device, *gi; unsigned id, profile; placement place; } ci_info;
typedef struct { unsigned id, p2p, slices, instances, sm, copy, decoder, encoder, jpeg, ofa; unsigned long long mib; } gi_profile_v1;
typedef struct {
    unsigned version, id, p2p, slices, instances, sm, copy, decoder, encoder, jpeg, ofa;
    unsigned long long mib;
    char name[96];
} gi_profile_v2;
typedef struct { unsigned id, slices, instances, sm, copy, decoder, encoder, jpeg, ofa; } ci_profile_v1;
typedef struct { unsigned version, id, slices, instances, sm, copy, decoder, encoder, jpeg, ofa; char name[96]; } ci_profile_v2;
typedef struct { void *device; unsigned long long type, data; unsigned gi, ci; } event_data;
typedef struct { unsigned pid; unsigned long long time_us; unsigned sm, mem, enc, dec; } process_sample;
typedef struct { unsigned long long time_us, value; } sample;
typedef struct {
    unsigned id, scope;
    long long timestamp, latency;
    unsigned type;
    int ret;
    unsigned long long value;
} field_value;
typedef struct { unsigned version; int sensor; int celsius; } temperature_v1;
typedef struct { unsigned gpu, memory; unsigned long long max_memory, time_ms, start_us; unsigned running, reserved[5]; } accounting;
typedef struct { unsigned max, high, partial, low, none; } remap_histogram;
typedef struct { unsigned version, supported; } gpm_support;

_Static_assert(sizeof(memory_v2) == 40 && sizeof(pci_info) == 68 && sizeof(process_info) == 24, "nvml.h layout");
_Static_assert(sizeof(attributes) == 40 && sizeof(gi_info) == 24 && sizeof(ci_info) == 32, "nvml.h layout");
_Static_assert(sizeof(gi_profile_v1) == 48 && sizeof(gi_profile_v2) == 152, "nvml.h layout");
_Static_assert(sizeof(ci_profile_v1) == 36 && sizeof(ci_profile_v2) == 136, "nvml.h layout");
_Static_assert(sizeof(event_data) == 32 && sizeof(process_sample) == 32 && sizeof(sample) == 16, "nvml.h layout");
_Static_assert(sizeof(field_value) == 40 && sizeof(temperature_v1) == 12, "nvml.h layout");
_Static_assert(sizeof(process_info_v1) == 16 && sizeof(process_detail) == 32 && sizeof(process_details) == 24, "nvml.h layout");
_Static_assert(sizeof(accounting) == 56, "nvml.h layout");

struct target { /* what a handle stands for now; gi and ci are NULL where the kind has none */
    enum handle_kind kind;
    struct json *gpu, *gi, *ci;
    unsigned gi_id, ci_id;
    const char *uuid, *set; /* of the GPU */
};

/* nvml_start.c */
void *handle_make(enum handle_kind kind, const char *gpu_uuid, unsigned gi, unsigned ci); /* NULL: table full */
int handle_find(const void *handle, struct target *out); /* OK, INVALID_ARGUMENT or NOT_FOUND */
int api_enter(const char *symbol, const void *handle);   /* faults, initialisation; takes the state on OK */
int api_leave(int ret);                                  /* gives the state back */
int copy_text(char *out, unsigned length, const char *text);

/* nvml_inventory.c */
struct json *nth_gpu(unsigned n, unsigned *count);       /* of this view, or NULL; `count` gets how many there are */
int gpu_constant(const char *symbol, void *device, int value, int *out); /* what all boards of the lab have alike */

/* nvml_mig.c, nvml_gi.c, nvml_ci.c */
int has_mig(const struct target *t);
const struct profile *gi_profile(const struct target *t);
int change_begin(const void *handle, enum handle_kind kind, struct target *t); /* takes the lock, finds afresh */
int change_end(int ret);                                                       /* writes back on OK; leaves the call */
int in_use(const struct target *t, unsigned gi, unsigned ci);                  /* NO_INSTANCE: any */
struct json *list_of(struct json *object, const char *key);                    /* made if missing; NULL: no memory */
unsigned ci_slices(unsigned ci_profile);                                       /* 0: no such profile */

/* nvml_process.c, nvml_measure.c, nvml_health.c: a negative number is one that is not known */
int processes_of(const struct target *t, struct process *out); /* what a handle shows; room for MAX_PROCESSES */
int measured(const struct target *t);                          /* utilisation exists: no MIG, and the state has it */
uint64_t now_us(void);
int64_t energy_mj(const struct json *gpu);
int64_t ecc_errors(const struct json *gpu, int uncorrected, int aggregate);
int64_t remapped_rows(const struct target *t, int which);

#define ENTER(handle) do { int entered_ = api_enter(__func__, handle); if (entered_) return entered_; } while (0)
#define FIND(handle, t) do { int found_ = handle_find(handle, t); if (found_) return api_leave(found_); } while (0)

#endif
