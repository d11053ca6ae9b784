#define _GNU_SOURCE
#include "state.h"

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

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct json *root;
static struct stat seen;
static int lock_fd = -1;

int state_in_container(void) { return !getenv("DS01_SIM_NVML"); }

void state_path(char out[], const char *name) {
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
    state_path(path, "state.json");
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
    state_path(path, "lock");
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
    state_path(path, "state.json");
    state_path(fresh, ".state.library");
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
    if (list || !state_in_container()) return list;
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
