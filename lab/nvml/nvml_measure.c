/* What a GPU measures of itself. None of the utilisations exists while MIG is on; what the state does not know is
 * NOT_SUPPORTED, never 0.
 */
#define _GNU_SOURCE
#include "nvml.h"

#include <stdint.h>
#include <time.h>

#define MOST_MJ 1e18

uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* A number of the GPU's own; MIG devices have none of these. */
static int gpu_number(const char *symbol, void *device, const char *key, unsigned *out) {
    int entered = api_enter(symbol, device);
    if (entered) return entered;
    struct target t;
    FIND(device, &t);
    int64_t value = t.kind == KIND_GPU ? json_int(t.gpu, key, -1) : -1;
    if (value < 0) return api_leave(NOT_SUPPORTED);
    *out = value > UINT32_MAX ? UINT32_MAX : (unsigned)value;
    return api_leave(OK);
}

#define NUMBER(function, key) \
    API int function(void *device, unsigned *out) { return gpu_number(__func__, device, key, out); }

NUMBER(nvmlDeviceGetMinorNumber, "minor")
NUMBER(nvmlDeviceGetPowerUsage, "power_mw")
NUMBER(nvmlDeviceGetFanSpeed, "fan")

API int nvmlDeviceGetPcieThroughput(void *device, int counter, unsigned *out) {
    (void)counter;
    return gpu_number(__func__, device, "pcie_kbps", out);
}

API int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *out) {
    (void)sensor;
    return gpu_number(__func__, device, "temp", out);
}

API int nvmlDeviceGetTemperatureV(void *device, temperature_v1 *out) {
    if (out->version != NVML_VERSION(temperature_v1, 1)) return VERSION_MISMATCH;
    unsigned celsius = 0;
    int ret = gpu_number(__func__, device, "temp", &celsius);
    out->celsius = (int)celsius;
    return ret;
}

int measured(const struct target *t) {
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

static int engine_use(const char *symbol, void *device, unsigned *out, unsigned *period_us) {
    int entered = api_enter(symbol, device);
    if (entered) return entered;
    struct target t;
    FIND(device, &t);
    if (!measured(&t)) return api_leave(NOT_SUPPORTED);
    *out = 0;
    *period_us = 167000;
    return api_leave(OK);
}

API int nvmlDeviceGetEncoderUtilization(void *device, unsigned *out, unsigned *us) { return engine_use(__func__, device, out, us); }
API int nvmlDeviceGetDecoderUtilization(void *device, unsigned *out, unsigned *us) { return engine_use(__func__, device, out, us); }

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

/* mJ: what was stored, plus the present power over the wall time since `at_ns`; 0 stands for no time. */
int64_t energy_mj(const struct json *gpu) {
    const struct json *energy = json_get(gpu, "energy");
    uint64_t now = now_us();
    int64_t at_us = json_int(energy, "at_ns", 0) / 1000, stored = json_int(energy, "mj", -1), power_mw = json_int(gpu, "power_mw", -1);
    double passed_s = at_us > 0 && (uint64_t)at_us < now ? (double)(now - (uint64_t)at_us) / 1e6 : 0;
    double drawn = passed_s * (double)power_mw;
    return stored < 0 || power_mw < 0 ? -1 : drawn < MOST_MJ ? stored + (int64_t)drawn : (int64_t)MOST_MJ;
}

API int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    int64_t energy = t.kind == KIND_GPU ? energy_mj(t.gpu) : -1;
    if (energy < 0) return api_leave(NOT_SUPPORTED);
    *out = (uint64_t)energy;
    return api_leave(OK);
}
