/* ECC, remapped rows, reasons for lower clocks, and the fields that tell several of these in one call. */
#define _GNU_SOURCE
#include "nvml.h"

#include <stdint.h>

#define DEVICE_MEMORY 2
#define BANKS 640 /* of an A100, as nvidia-smi -q shows them */
#define UNSIGNED_LONG_LONG 3

int64_t ecc_errors(const struct json *gpu, int uncorrected, int aggregate) {
    const struct json *ecc = json_get(gpu, "ecc");
    if (!ecc || ecc->kind != JSON_OBJECT) return -1;
    int64_t since_boot = json_int(ecc, uncorrected ? "dbe_vol" : "sbe_vol", 0);
    return aggregate ? json_int(ecc, uncorrected ? "dbe_agg" : "sbe_agg", since_boot) : since_boot;
}

static int errors(const char *symbol, void *device, int type, int counter, int location, unsigned long long *out) {
    int entered = api_enter(symbol, device);
    if (entered) return entered;
    struct target t;
    FIND(device, &t);
    int64_t n = t.kind == KIND_GPU ? ecc_errors(t.gpu, type == 1, counter == 1) : -1;
    if (n < 0) return api_leave(NOT_SUPPORTED);
    *out = location == DEVICE_MEMORY ? (uint64_t)n : 0;
    return api_leave(OK);
}

API int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *out) {
    return errors(__func__, device, type, counter, DEVICE_MEMORY, out);
}

API int nvmlDeviceGetMemoryErrorCounter(void *device, int type, int counter, int location, unsigned long long *out) {
    return errors(__func__, device, type, counter, location, out);
}

API int nvmlDeviceGetEccMode(void *device, unsigned *current, unsigned *pending) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (t.kind != KIND_GPU || ecc_errors(t.gpu, 1, 0) < 0) return api_leave(NOT_SUPPORTED);
    *current = *pending = 1;
    return api_leave(OK);
}

/* SOURCE: NVML, nvmlDeviceGetRemappedRows: not supported while MIG instances are active. */
int64_t remapped_rows(const struct target *t, int which) {
    if (t->kind != KIND_GPU || (has_mig(t) && json_first(t->gpu, "gis"))) return -1;
    const struct json *row = json_first(t->gpu, "remap");
    for (int i = 0; row && i < which; i++) row = row->next;
    return row && row->kind == JSON_NUMBER ? row->number : -1;
}

API int nvmlDeviceGetRemappedRows(void *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    unsigned *const out[] = {corrected, uncorrected, pending, failed};
    for (int i = 0; i < 4; i++) {
        int64_t rows = remapped_rows(&t, i);
        if (rows < 0) return api_leave(NOT_SUPPORTED);
        *out[i] = (unsigned)rows;
    }
    return api_leave(OK);
}

/* Every remapped row stands in a bank of its own; a failure means that one bank has no spare left. */
API int nvmlDeviceGetRowRemapperHistogram(void *device, remap_histogram *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    int64_t corrected = remapped_rows(&t, 0), uncorrected = remapped_rows(&t, 1), failed = remapped_rows(&t, 3);
    if (corrected < 0 || uncorrected < 0 || failed < 0) return api_leave(NOT_SUPPORTED);
    unsigned none = failed != 0, used = corrected + uncorrected < BANKS - none ? (unsigned)(corrected + uncorrected) : BANKS - none;
    *out = (remap_histogram){.max = BANKS - used - none, .high = used, .none = none};
    return api_leave(OK);
}

/* SOURCE: NVML: boards with row remapping retire no pages. */
API int nvmlDeviceGetRetiredPagesPendingStatus(void *device, unsigned *out) {
    (void)out;
    ENTER(device);
    return api_leave(NOT_SUPPORTED);
}

static int clock_reasons(const char *symbol, void *device, unsigned long long *out) {
    int entered = api_enter(symbol, device);
    if (entered) return entered;
    struct target t;
    FIND(device, &t);
    int64_t reasons = json_int(t.gpu, "reasons", -1);
    if (t.kind != KIND_GPU || reasons < 0) return api_leave(NOT_SUPPORTED);
    *out = (uint64_t)reasons;
    return api_leave(OK);
}

API int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *out) { return clock_reasons(__func__, device, out); }
API int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *out) { return clock_reasons(__func__, device, out); }

/* SOURCE: nvml.h, NVML_FI_DEV_*. Negative: not known, or not simulated. */
static int64_t field_of(const struct target *t, unsigned id) {
    switch (id) {
        case 3: case 4: case 5: case 6: return ecc_errors(t->gpu, id == 4 || id == 6, id >= 5);
        case 83: return energy_mj(t->gpu);
        case 142: case 143: case 144: case 145: return remapped_rows(t, (int)id - 142);
        case 185: case 186: return json_int(t->gpu, "power_mw", -1);
        case 230: return json_int(t->gpu, "recovery", -1);
        default: return -1;
    }
}

API int nvmlDeviceGetFieldValues(void *device, int count, field_value *fields) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    if (count < 1 || !fields) return api_leave(INVALID_ARGUMENT);
    for (int i = 0; i < count; i++) {
        int64_t value = t.kind == KIND_GPU ? field_of(&t, fields[i].id) : -1;
        fields[i].timestamp = (long long)now_us();
        fields[i].type = UNSIGNED_LONG_LONG;
        fields[i].ret = value < 0 ? NOT_SUPPORTED : OK;
        fields[i].value = value < 0 ? 0 : (uint64_t)value;
    }
    return api_leave(OK);
}
