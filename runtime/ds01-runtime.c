/*
 * ds01-runtime: dockerd's default runtime. It is runc, with one question before `create`.
 *
 * containerd runs it as it would run runc. Every command but `create` goes straight on to runc. For `create`, ds01-guard
 * is asked over its root-only socket about the bundle; runc runs only after a yes. No answer means no start. `run` and
 * `restore`, which start containers as well and which dockerd does not use, are refused.
 *
 * All judgement is in ds01-guard (runtime/checks.py). Here: find the bundle, ask, wait at most DEADLINE_MS, obey.
 * SECURITY: what is not understood is refused, for a command that is overlooked would start a container unseen.
 *
 * Build: cc -O2 -static -DGUARD_SOCKET='"/run/ds01/guard.sock"' -o ds01-runtime ds01-runtime.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef GUARD_SOCKET
#define GUARD_SOCKET "/run/ds01/guard.sock"
#endif
#ifndef RUNC
#define RUNC "runc" /* found on PATH, as containerd finds it */
#endif
#define DEADLINE_MS 20000 /* longer than the guard's own deadline, so that its reason arrives */
#define ANSWER_BYTES 8192

/* SOURCE: runc(8) and runc-create(8) of runc 1.1 and 1.2; containerd writes "--name value", never "--name=value". */
static const char *const GLOBAL_VALUES[] = {"--log", "--log-format", "--root", "--criu", "--rootless", NULL};
static const char *const GLOBAL_FLAGS[] = {"--debug", "--systemd-cgroup", "--help", "-h", "--version", "-v", NULL};
static const char *const CREATE_VALUES[] = {"--bundle", "-b", "--console-socket", "--pid-file", "--preserve-fds",
                                            "--pidfd-socket", NULL};
static const char *const CREATE_FLAGS[] = {"--no-pivot", "--no-new-keyring", NULL};

static const char *log_path;

/* Tell the user, in the form in which containerd passes a runtime's error on, and do not start. `quoted`: a JSON string. */
static void refuse_quoted(const char *quoted)
{
    int to = log_path ? open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : STDERR_FILENO;
    if (to >= 0)
        dprintf(to, "{\"level\":\"error\",\"msg\":%s}\n", quoted);
    exit(1);
}

/* `problem` is one of this file's own sentences: nothing in it needs escaping. */
static void refuse(const char *problem)
{
    char quoted[512];
    snprintf(quoted, sizeof quoted, "\"ds01: %s (rule start); tell the admin\"", problem);
    refuse_quoted(quoted);
}

static void run_runc(char **argv)
{
    argv[0] = RUNC;
    execvp(RUNC, argv);
    refuse("the program runc cannot be run");
}

static int is_one_of(const char *word, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(word, *names) == 0)
            return 1;
    return 0;
}

/* Step over the options at argv[at]; a value of `wanted` (either name) is put into *found. Gives the next word's place. */
static int options(char **argv, int at, const char *const *values, const char *const *flags, const char *const wanted[2],
                   const char **found)
{
    while (argv[at] && argv[at][0] == '-') {
        if (is_one_of(argv[at], flags)) {
            at++;
        } else if (is_one_of(argv[at], values) && argv[at + 1]) {
            if (strcmp(argv[at], wanted[0]) == 0 || strcmp(argv[at], wanted[1]) == 0) {
                if (*found)
                    refuse("an option was given twice");
                *found = argv[at + 1];
            }
            at += 2;
        } else {
            refuse("the container runtime was called with an option that ds01-runtime does not know");
        }
    }
    return at;
}

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void wait_for(int guard, short event, long long deadline)
{
    struct pollfd ready = {.fd = guard, .events = event};
    for (;;) {
        long long left = deadline - now_ms();
        int count = left > 0 ? poll(&ready, 1, (int)left) : 0;
        if (count == 0)
            refuse("the guard of container starts (ds01-guard) did not answer in time");
        if (count > 0)
            return;
        if (errno != EINTR)
            refuse("the guard of container starts (ds01-guard) cannot be waited for");
    }
}

static int connect_to_guard(long long deadline)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct ucred peer;
    socklen_t size = sizeof peer;
    struct timespec pause = {.tv_nsec = 20000000};
    int guard = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    _Static_assert(sizeof GUARD_SOCKET <= sizeof address.sun_path, "the socket's path is too long");
    memcpy(address.sun_path, GUARD_SOCKET, sizeof GUARD_SOCKET);
    if (guard < 0)
        refuse("no socket to ask the guard of container starts with");
    while (connect(guard, (struct sockaddr *)&address, sizeof address) != 0) {
        if (errno != EAGAIN) /* EAGAIN: many ask at once */
            refuse("the guard of container starts (ds01-guard) is not running");
        if (now_ms() > deadline)
            refuse("the guard of container starts (ds01-guard) did not answer in time");
        nanosleep(&pause, NULL);
    }
    if (getsockopt(guard, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != 0)
        refuse("something else than ds01-guard answers in its place");
    return guard;
}

/* The question: container id and bundle, each ended by a zero byte. The answer: "yes\n", or "no" and a JSON string. */
static void ask_guard(const char *id, const char *bundle)
{
    long long deadline = now_ms() + DEADLINE_MS;
    int guard = connect_to_guard(deadline);
    char question[4096], answer[ANSWER_BYTES + 1];
    size_t length = strlen(id) + 1 + strlen(bundle) + 1, got = 0;
    ssize_t count;

    if (length > sizeof question)
        refuse("the bundle's path is too long");
    memcpy(question, id, strlen(id) + 1);
    memcpy(question + strlen(id) + 1, bundle, strlen(bundle) + 1);
    wait_for(guard, POLLOUT, deadline);
    if (send(guard, question, length, MSG_NOSIGNAL) != (ssize_t)length || shutdown(guard, SHUT_WR) != 0)
        refuse("the guard of container starts (ds01-guard) cannot be asked");
    do {
        wait_for(guard, POLLIN, deadline);
        count = read(guard, answer + got, ANSWER_BYTES - got);
        if (count > 0)
            got += (size_t)count;
    } while (got < ANSWER_BYTES && (count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR))));
    answer[got] = '\0';
    if (count == 0 && strcmp(answer, "yes\n") == 0)
        return;
    if (count == 0 && strncmp(answer, "no\"", 3) == 0)
        refuse_quoted(answer + 2);
    refuse("the guard of container starts (ds01-guard) ended before it answered");
}

int main(int argc, char **argv)
{
    static const char *const LOG[2] = {"--log", "--log"}, *const BUNDLE[2] = {"--bundle", "-b"};
    const char *bundle = NULL;
    int command, id;

    if (argc < 1)
        return 1;
    command = options(argv, 1, GLOBAL_VALUES, GLOBAL_FLAGS, LOG, &log_path);
    if (!argv[command])
        run_runc(argv);
    if (strcmp(argv[command], "run") == 0 || strcmp(argv[command], "restore") == 0)
        refuse("containers are started by create and start; run and restore are closed");
    if (strcmp(argv[command], "create") == 0) {
        id = options(argv, command + 1, CREATE_VALUES, CREATE_FLAGS, BUNDLE, &bundle);
        if (!argv[id] || argv[id + 1] || !bundle)
            refuse("the container runtime was called without one id and one bundle");
        ask_guard(argv[id], bundle);
    }
    run_runc(argv);
}
