/* The processes of a simulated machine: those the state lists, and those that hold a claim. */
#define _GNU_SOURCE
#include "state.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned instance(const struct json *node, const char *key) {
    int64_t value = json_int(node, key, -1);
    return value < 0 || value > 0xFFFF ? NO_INSTANCE : (unsigned)value;
}

/* The pid as the caller's PID namespace has it; 0: not visible there. `pids` maps a namespace's inode to the pid in it.
 * Without it a pid is the host's: outside containers it is what it says, inside it is not visible. */
static int64_t pid_for_caller(const struct json *p) {
    const struct json *pids = json_get(p, "pids");
    struct stat own;
    char key[32];
    if (!pids) return state_in_container() ? 0 : json_int(p, "pid", 0);
    if (stat("/proc/self/ns/pid", &own) != 0) return 0;
    snprintf(key, sizeof key, "%llu", (unsigned long long)own.st_ino);
    return json_int(pids, key, 0);
}

static int listed(const struct json *gpu, struct process *out, int room) {
    int n = 0;
    const char *uuid = json_text(gpu, "uuid", "");
    for (struct json *p = json_first(state_root(), "procs"); p && n < room; p = p->next) {
        int64_t pid = pid_for_caller(p), sm = json_int(p, "sm", 0);
        if (strcasecmp(json_text(p, "gpu", ""), uuid) != 0 || pid < 0 || pid > INT_MAX) continue;
        int64_t mib = json_int(p, "mib", UNKNOWN_MIB);
        out[n++] = (struct process){.pid = (unsigned)pid, .mib = mib < 0 ? UNKNOWN_MIB : mib,
                                    .gi = instance(p, "gi"), .ci = instance(p, "ci"),
                                    .type = json_text(p, "type", "C")[0],
                                    .sm = sm < 0 ? 0 : sm > 100 ? 100 : (unsigned)sm};
    }
    return n;
}

/* One claim file: held iff somebody has a write lock; the kernel gives the holder's pid as we see it, 0 if we do not.
 * Closing drops locks of *this* process on the file: a process that claims must not also ask NVML. */
static int read_claim(int dir, const char *name, struct process *out) {
    struct flock probe = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char text[64] = "";
    long long mib = UNKNOWN_MIB;
    char type = 'C';
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return 0;
    int held = fcntl(fd, F_GETLK, &probe) == 0 && probe.l_type == F_WRLCK;
    if (held && read(fd, text, sizeof text - 1) > 0) sscanf(text, "%lld %c", &mib, &type);
    close(fd);
    out->pid = held && probe.l_pid > 0 ? (unsigned)probe.l_pid : 0;
    out->mib = mib < 0 ? UNKNOWN_MIB : mib;
    out->type = type;
    return held;
}

static int claimed(const char *uuid, unsigned gi, unsigned ci, struct process *out, int room) {
    char path[PATH_MAX], name[256];
    int n = 0;
    if (!*uuid || strchr(uuid, '/') || strcmp(uuid, "..") == 0) return 0;
    snprintf(name, sizeof name, "claims/%s", uuid);
    state_path(path, name);
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
