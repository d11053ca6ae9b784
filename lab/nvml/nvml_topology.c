/* How GPUs are joined to each other, to processors and to memory. `numa` of a GPU is its node; `links` has the PCI
 * address of the far end of each NVLink, null for one that is down. MIG devices have neither peers nor links.
 */
#define _GNU_SOURCE
#include "nvml.h"

#include <stdio.h>

#define CPUS_PER_NODE 16
#define WORD_BITS 64
enum { SAME_BOARD = 0, SAME_NODE = 40, SYSTEM = 50 };

static int64_t node_of(const struct json *gpu) { return json_int(gpu, "numa", -1); }

API int nvmlDeviceGetTopologyCommonAncestor(void *first, void *second, int *out) {
    ENTER(first);
    struct target a, b;
    FIND(first, &a);
    FIND(second, &b);
    *out = a.gpu == b.gpu ? SAME_BOARD : node_of(a.gpu) == node_of(b.gpu) ? SAME_NODE : SYSTEM;
    return api_leave(OK);
}

/* The entry of one link; NULL: the board has no such link. */
static const struct json *link_of(const struct target *t, unsigned link) {
    const struct json *one = t->kind == KIND_GPU && !has_mig(t) ? json_first(t->gpu, "links") : NULL;
    while (one && link--) one = one->next;
    return one;
}

API int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    const struct json *one = link_of(&t, link);
    if (!one) return api_leave(NOT_SUPPORTED);
    *out = one->kind == JSON_STRING;
    return api_leave(OK);
}

API int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, unsigned link, pci_info *out) {
    ENTER(device);
    struct target t;
    FIND(device, &t);
    const struct json *one = link_of(&t, link);
    if (!one || one->kind != JSON_STRING) return api_leave(NOT_SUPPORTED);
    *out = (pci_info){0};
    snprintf(out->bus_id, sizeof out->bus_id, "%s", one->text);
    sscanf(out->bus_id, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    return api_leave(OK);
}

static int fill_mask(const char *symbol, void *device, unsigned words, unsigned long *out, unsigned bits_per_node) {
    int entered = api_enter(symbol, device);
    if (entered) return entered;
    struct target t;
    FIND(device, &t);
    int64_t node = node_of(t.gpu);
    if (node < 0) return api_leave(NOT_SUPPORTED);
    if (!out) return api_leave(INVALID_ARGUMENT);
    for (unsigned i = 0; i < words; i++) out[i] = 0;
    for (unsigned i = 0; i < bits_per_node; i++) {
        uint64_t bit = (uint64_t)node * bits_per_node + i;
        if (bit / WORD_BITS >= words) return api_leave(INSUFFICIENT_SIZE);
        out[bit / WORD_BITS] |= 1UL << bit % WORD_BITS;
    }
    return api_leave(OK);
}

API int nvmlDeviceGetCpuAffinity(void *device, unsigned words, unsigned long *out) {
    return fill_mask(__func__, device, words, out, CPUS_PER_NODE);
}

API int nvmlDeviceGetCpuAffinityWithinScope(void *device, unsigned words, unsigned long *out, int scope) {
    (void)scope;
    return fill_mask(__func__, device, words, out, CPUS_PER_NODE);
}

API int nvmlDeviceGetMemoryAffinity(void *device, unsigned words, unsigned long *out, int scope) {
    (void)scope;
    return fill_mask(__func__, device, words, out, 1);
}
