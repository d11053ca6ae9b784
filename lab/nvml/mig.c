#include "mig.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* SOURCE: public nvidia-smi mig -lgip listings; ids and placements as the driver reports them. */
#define TABLE(a, b, c, d, e, f, g, mib1, mib2, mib4, mib8, sm1, sm2, sm3, sm4, sm7, smd) { \
    {19, 0, 1, 1, 7, 0, 0x7F, mib1, sm1, a}, {20, 7, 1, 1, 1, 1, 0x7F, mib1, sm1, b}, \
    {15, 9, 1, 2, 4, 0, 0x55, mib2, smd, c}, {14, 1, 2, 2, 3, 0, 0x15, mib2, sm2, d}, \
    {9, 2, 3, 4, 2, 0, 0x11, mib4, sm3, e},  {5, 3, 4, 4, 1, 0, 0x01, mib4, sm4, f}, \
    {0, 4, 7, 8, 1, 0, 0x01, mib8, sm7, g}}

static const struct profile a100_40[PROFILES] =
    TABLE("1g.5gb", "1g.5gb+me", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb",
          4864, 9856, 19968, 40192, 14, 28, 42, 56, 98, 14);
static const struct profile a100_80[PROFILES] =
    TABLE("1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb",
          9728, 19968, 40192, 80384, 14, 28, 42, 56, 98, 14);
static const struct profile h100_80[PROFILES] =
    TABLE("1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb",
          9984, 20096, 40448, 81152, 16, 32, 60, 64, 132, 26);

const struct profile *mig_profiles(const char *set) {
    if (strcmp(set, "a100-40") == 0) return a100_40;
    if (strcmp(set, "a100-80") == 0) return a100_80;
    if (strcmp(set, "h100-80") == 0) return h100_80;
    return NULL;
}

const struct profile *mig_profile(const char *set, unsigned id) {
    const struct profile *table = mig_profiles(set);
    for (int i = 0; table && i < PROFILES; i++)
        if (table[i].id == id) return &table[i];
    return NULL;
}

/* Nodes of a binary tree over 8 memory slices: 0 whole, 1-2 halves, 3-6 quarters, 7-14 eighths. */
unsigned mig_tree_node(unsigned start, unsigned size) {
    return size ? 8 / size - 1 + start / size : 0;
}

static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1_block(uint32_t h[5], const unsigned char *block) {
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
        uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
        uint32_t t = rotate(a, 5) + f + e + k + w[i];
        e = d; d = c; c = rotate(b, 30); b = a; a = t;
    }
    h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e;
}

/* The same value as Python's "MIG-" + uuid.uuid5(uuid.UUID(int=0), f"{gpu}/{gi}/{ci}"), so that the
 * hook and the lab compute it without this library. The place decides: re-creation gives it again. */
void mig_uuid(const char *gpu_uuid, unsigned gi, unsigned ci, char out[UUID_TEXT]) {
    unsigned char block[128] = {0};
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    int n = snprintf((char *)block + 16, 96, "%.60s/%u/%u", gpu_uuid, gi, ci) + 16;
    size_t length = (size_t)n, total = length + 9 <= 64 ? 64 : 128;
    block[length] = 0x80;
    block[total - 2] = (unsigned char)(length * 8 >> 8);
    block[total - 1] = (unsigned char)(length * 8);
    for (size_t i = 0; i < total; i += 64) sha1_block(h, block + i);
    h[1] = (h[1] & 0xFFFF0FFFU) | 0x5000U;
    h[2] = (h[2] & 0x3FFFFFFFU) | 0x80000000U;
    snprintf(out, UUID_TEXT, "MIG-%08x-%04x-%04x-%04x-%04x%08x", h[0], h[1] >> 16, h[1] & 0xFFFF, h[2] >> 16, h[2] & 0xFFFF, h[3]);
}
