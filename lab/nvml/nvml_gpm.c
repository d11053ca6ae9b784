/* GPU performance monitoring: exists from Hopper on, and is not simulated for any board. */
#include "nvml.h"

API int nvmlGpmQueryDeviceSupport(void *device, gpm_support *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    out->supported = 0;
    return api_leave(OK);
}

static int refuse(const char *symbol, const void *device) {
    int entered = api_enter(symbol, device);
    return entered ? entered : api_leave(NOT_SUPPORTED);
}

API int nvmlGpmSampleAlloc(void **out) { (void)out; return refuse(__func__, NULL); }
API int nvmlGpmSampleFree(void *one) { (void)one; return refuse(__func__, NULL); }
API int nvmlGpmSampleGet(void *device, void *one) { (void)one; return refuse(__func__, device); }
API int nvmlGpmMigSampleGet(void *device, unsigned gi, void *one) { (void)gi, (void)one; return refuse(__func__, device); }
API int nvmlGpmMetricsGet(void *wanted) { (void)wanted; return refuse(__func__, NULL); }
