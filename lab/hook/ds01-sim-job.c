/* Stands for a program that computes on a simulated GPU, in a container or on the host:
 *     ds01-sim-job [-m MIB|unknown] [-t C|G|M] [UUID...]
 * It claims each device (all that are visible when none is named) by a POSIX write lock on a file of the device's claims
 * directory, says so, and waits for a signal. The kernel lets the claim go with the process, however that ends.
 * Exit codes: 0 ended by SIGTERM or SIGINT · 1 a device cannot be claimed · 2 usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_DEVICES 64
#define MOST_SHARING 16
#define VISIBLE "/run/ds01-sim/visible"
#define IN_CONTAINER "/run/ds01-sim/state"

static char claims[MOST_DEVICES][PATH_MAX];
static int claimed;

/* Opens and locks the claim of this name; -1 when it is another process's, or cannot be had. Its descriptor stays open:
 * closing it would give the claim up. */
static int take(const char *path) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd >= 0 && fcntl(fd, F_SETLK, &lock) == 0 && ftruncate(fd, 0) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

static int claim(const char *directory, const char *uuid, const char *mib, const char *type) {
    char *path = claims[claimed];
    int fd = -1;
    snprintf(path, PATH_MAX, "%s/claims/%s", directory, uuid);
    mkdir(path, 0777); /* there already in a container, where it cannot be made */
    /* Containers that share a device have the same pids. */
    for (int n = 0; fd < 0 && n < MOST_SHARING; n++) {
        snprintf(path, PATH_MAX, "%s/claims/%s/%d.%d", directory, uuid, (int)getpid(), n);
        fd = take(path);
    }
    if (fd < 0 || dprintf(fd, "%s %s\n", mib, type) < 0) {
        fprintf(stderr, "ds01-sim-job: cannot claim %s: %s\n", uuid, strerror(errno));
        return 0;
    }
    claimed++;
    printf("running on %s\n", uuid);
    return 1;
}

static int claim_visible(const char *directory, const char *mib, const char *type) {
    char uuid[128];
    FILE *visible = fopen(VISIBLE, "re");
    int fine = visible != NULL;
    if (!visible) fprintf(stderr, "ds01-sim-job: no GPU here; name a device\n");
    while (fine && claimed < MOST_DEVICES && fscanf(visible, "%127s", uuid) == 1) fine = claim(directory, uuid, mib, type);
    if (visible) fclose(visible);
    return fine;
}

int main(int count, char **arguments) {
    const char *directory = getenv("DS01_SIM_NVML"), *mib = "1024", *type = "C";
    int option, received, fine = 1;
    sigset_t ends;
    while ((option = getopt(count, arguments, "m:t:")) != -1) {
        if (option == 'm') mib = strcmp(optarg, "unknown") == 0 ? "-1" : optarg;
        else if (option == 't') type = optarg;
        else return 2;
    }
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    umask(0); /* the next user of the device claims the same file */
    if (!directory) directory = IN_CONTAINER;
    if (optind == count) fine = claim_visible(directory, mib, type);
    for (int i = optind; fine && i < count && claimed < MOST_DEVICES; i++) fine = claim(directory, arguments[i], mib, type);
    fflush(stdout);
    if (fine) sigwait(&ends, &received);
    while (claimed) unlink(claims[--claimed]);
    return fine ? 0 : 1;
}
