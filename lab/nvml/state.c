#define _GNU_SOURCE
#include "state.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define IN_CONTAINER_DIR "/run/ds01-sim/state"     /* where the stand-in hook mounts the state directory */
#define IN_CONTAINER_VISIBLE "/run/ds01-sim/visible"
#define MAX_STATE_BYTES (8 << 20)
#define MAX_VISIBLE_BYTES 8192
#define MAX_FAULTS 64

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct json *root;
static struct stat seen;
static int lock_fd = -1;

static int inside_container(void) { return !getenv("DS01_SIM_NVML"); }

static void path_of(char out[PATH_MAX], const char *name) {
    const char *dir = getenv("DS01_SIM_NVML");
    snprintf(out, PATH_MAX, "%s/%s", dir ? dir : IN_CONTAINER_DIR, name);
}

static char *read_whole(int fd, size_t size) {
    char *text = malloc(size + 1);
    size_t at = 0;
    for (ssize_t n; text && at < size && (n = read(fd, text + at, size - at)) > 0;) at += (size_t)n;
    if (text) text[at] = 0;
    return text;
}

/* Keeps the last good copy when the file is missing, too long or malformed. */
static void reload(void) {
    char path[PATH_MAX];
    struct stat now;
    path_of(path, "state.json");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return;
    int regular = fstat(fd, &now) == 0 && S_ISREG(now.st_mode) && now.st_size <= MAX_STATE_BYTES;
    int same = regular && now.st_ino == seen.st_ino && now.st_mtim.tv_sec == seen.st_mtim.tv_sec &&
               now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec;
    if (regular && !same) {
        char *text = read_whole(fd, (size_t)now.st_size);
        struct json *fresh = text ? json_read(text, strlen(text)) : NULL;
        free(text);
        seen = now;
        if (fresh && fresh->kind == JSON_OBJECT) { json_free(root); root = fresh; } else json_free(fresh);
    }
    close(fd);
}

void state_enter(void) { pthread_mutex_lock(&mutex); reload(); }
void state_leave(void) { pthread_mutex_unlock(&mutex); }
struct json *state_root(void) { return root; }

int state_lock(void) {
    char path[PATH_MAX];
    path_of(path, "lock");
    lock_fd = open(path, O_RDWR | O_CLOEXEC);
    if (lock_fd < 0 || flock(lock_fd, LOCK_EX) != 0) { state_abandon(); return -1; }
    reload();
    return 0;
}

void state_abandon(void) {
    if (lock_fd >= 0) close(lock_fd);
    lock_fd = -1;
    memset(&seen, 0, sizeof seen); /* a change in memory that was not written is read over */
    reload();
}

int state_commit(void) {
    char path[PATH_MAX], fresh[PATH_MAX];
    path_of(path, "state.json");
    path_of(fresh, ".state.library");
    json_set_int(root, "seq", json_int(root, "seq", 0) + 1);
    char *text = json_write(root);
    FILE *out = text ? fopen(fresh, "we") : NULL;
    int failed = !out || fputs(text, out) < 0;
    if (out && fclose(out) != 0) failed = 1;
    free(text);
    if (!failed && rename(fresh, path) != 0) failed = 1;
    state_abandon();
    return failed ? -1 : 0;
}

struct json *state_gpu(const char *uuid) {
    for (struct json *gpu = json_first(root, "gpus"); gpu; gpu = gpu->next)
        if (strcasecmp(json_text(gpu, "uuid", ""), uuid) == 0) return gpu;
    return NULL;
}

/* The list of this view: DS01_SIM_VISIBLE, or in a container the hook's file. NULL: everything.
 * INVARIANT: inside a container, no file means nothing, never everything. */
static const char *visible_list(char buffer[MAX_VISIBLE_BYTES]) {
    const char *list = getenv("DS01_SIM_VISIBLE");
    if (list || !inside_container()) return list;
    int fd = open(IN_CONTAINER_VISIBLE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? 0 : read(fd, buffer, MAX_VISIBLE_BYTES - 1);
    if (fd >= 0) close(fd);
    buffer[n > 0 ? n : 0] = 0;
    return buffer;
}

int state_visible(const char *uuid) {
    char buffer[MAX_VISIBLE_BYTES];
    const char *list = visible_list(buffer);
    size_t length = strlen(uuid);
    if (!list) return 1;
    for (const char *at = list; *at; at += *at != 0) {
        size_t item = strcspn(at, ", \n");
        if (item == length && item && strncasecmp(at, uuid, item) == 0) return 1;
        at += item;
        if (!*at) break;
    }
    return 0;
}

int state_gpu_visible(const struct json *gpu) {
    const char *uuid = json_text(gpu, "uuid", "");
    char mig[UUID_TEXT];
    if (state_visible(uuid)) return 1;
    for (struct json *gi = json_first(gpu, "gis"); gi; gi = gi->next)
        for (struct json *ci = json_first(gi, "cis"); ci; ci = ci->next) {
            mig_uuid(uuid, (unsigned)json_int(gi, "id", 0), (unsigned)json_int(ci, "id", 0), mig);
            if (state_visible(mig)) return 1;
        }
    return 0;
}

static unsigned instance(const struct json *node, const char *key) {
    int64_t value = json_int(node, key, -1);
    return value < 0 || value > 0xFFFF ? NO_INSTANCE : (unsigned)value;
}

/* Pids in the file are the host's; a container cannot see them, so there they are left out. */
static int listed(const struct json *gpu, struct process *out, int room) {
    int n = 0;
    const char *uuid = json_text(gpu, "uuid", "");
    for (struct json *p = inside_container() ? NULL : json_first(root, "procs"); p && n < room; p = p->next) {
        int64_t pid = json_int(p, "pid", 0), sm = json_int(p, "sm", 0);
        if (strcasecmp(json_text(p, "gpu", ""), uuid) != 0 || pid <= 0 || pid > INT_MAX) continue;
        int64_t mib = json_int(p, "mib", UNKNOWN_MIB);
        out[n++] = (struct process){.pid = (unsigned)pid, .mib = mib < 0 ? UNKNOWN_MIB : mib,
                                    .gi = instance(p, "gi"), .ci = instance(p, "ci"),
                                    .type = json_text(p, "type", "C")[0],
                                    .sm = sm < 0 ? 0 : sm > 100 ? 100 : (unsigned)sm};
    }
    return n;
}

/* One claim file: held iff somebody has a write lock; the kernel gives the holder's pid as we see it.
 * Closing drops locks of *this* process on the file: a process that claims must not also ask NVML. */
static int read_claim(int dir, const char *name, struct process *out) {
    struct flock probe = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char text[64] = "";
    long long mib = UNKNOWN_MIB;
    char type = 'C';
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return 0;
    int held = fcntl(fd, F_GETLK, &probe) == 0 && probe.l_type == F_WRLCK && probe.l_pid > 0;
    if (held && read(fd, text, sizeof text - 1) > 0) sscanf(text, "%lld %c", &mib, &type);
    close(fd);
    out->pid = held ? (unsigned)probe.l_pid : 0;
    out->mib = mib < 0 ? UNKNOWN_MIB : mib;
    out->type = type;
    return held;
}

static int claimed(const char *uuid, unsigned gi, unsigned ci, struct process *out, int room) {
    char path[PATH_MAX], name[256];
    int n = 0;
    if (!*uuid || strchr(uuid, '/') || strcmp(uuid, "..") == 0) return 0;
    snprintf(name, sizeof name, "claims/%s", uuid);
    path_of(path, name);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && n < room && (entry = readdir(dir));) {
        out[n] = (struct process){.gi = gi, .ci = ci};
        if (entry->d_name[0] != '.' && read_claim(dirfd(dir), entry->d_name, &out[n])) n++;
    }
    if (dir) closedir(dir);
    return n;
}

int state_processes(const struct json *gpu, struct process *out, int room) {
    const char *uuid = json_text(gpu, "uuid", "");
    char mig[UUID_TEXT];
    int n = listed(gpu, out, room);
    n += claimed(uuid, NO_INSTANCE, NO_INSTANCE, out + n, room - n);
    for (struct json *gi = json_first(gpu, "gis"); gi; gi = gi->next)
        for (struct json *ci = json_first(gi, "cis"); ci; ci = ci->next) {
            unsigned gi_id = instance(gi, "id"), ci_id = instance(ci, "id");
            mig_uuid(uuid, gi_id, ci_id, mig);
            n += claimed(mig, gi_id, ci_id, out + n, room - n);
        }
    return n;
}

/* Calls that each fault has met, by the fault's own text: an edited fault counts anew. */
static int64_t meet(const struct json *fault) {
    static struct { uint64_t hash; int64_t calls; } met[MAX_FAULTS];
    char *text = json_write(fault);
    uint64_t hash = 1469598103934665603U;
    for (const char *c = text; c && *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211U;
    free(text);
    for (int i = 0; i < MAX_FAULTS; i++) {
        if (met[i].calls && met[i].hash != hash) continue;
        met[i].hash = hash;
        return ++met[i].calls;
    }
    return 1;
}

int state_fault(const char *symbol, const char *gpu_uuid, int64_t *hang_ms) {
    int ret = 0;
    *hang_ms = 0;
    for (struct json *f = json_first(root, "faults"); f; f = f->next) {
        const char *wanted = json_text(f, "symbol", ""), *gpu = json_text(f, "gpu", NULL);
        if (strcmp(wanted, "*") != 0 && strcmp(wanted, symbol) != 0) continue;
        if (gpu && (!gpu_uuid || strcasecmp(gpu, gpu_uuid) != 0)) continue;
        int64_t calls = meet(f) - json_int(f, "after_calls", 0), times = json_int(f, "times", INT64_MAX);
        if (calls < 1 || calls > times) continue;
        if (!*hang_ms) *hang_ms = json_int(f, "hang_ms", 0);
        if (!ret) ret = (int)json_int(f, "ret", 0);
    }
    return ret;
}
