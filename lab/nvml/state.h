/* The simulated machine: its state file and lock (state.c), processes (processes.c) and faults (faults.c).
 * Knows JSON and MIG, not the NVML API.
 *
 * Every function below is called between state_enter and state_leave, which hold one process-wide mutex.
 */
#ifndef DS01_SIM_STATE_H
#define DS01_SIM_STATE_H

#include "json.h"
#include "mig.h"

#define MAX_GPUS 64
#define NO_INSTANCE 0xFFFFFFFFU
#define UNKNOWN_MIB (-1)
#define MAX_PROCESSES 1024

struct process {
    unsigned pid; /* as the caller sees it; 0: it does not, and only the memory tells of it */
    int64_t mib; /* UNKNOWN_MIB: the driver does not say */
    unsigned gi, ci; /* NO_INSTANCE outside MIG */
    char type; /* C, G or M (MPS) */
    unsigned sm; /* per cent */
};

struct fault {
    int ret;         /* the code to answer, 0 for none */
    int64_t hang_ms; /* to sleep first */
    int deaf;        /* SIGTERM ends the process only afterwards */
};

void state_enter(void); /* also re-reads state.json when it changed */
void state_leave(void);

struct json *state_root(void);                 /* NULL until a state was read; owned by this module */
int state_lock(void);                          /* for a change: lock file, fresh copy. 0, or -1 without permission */
int state_commit(void);                        /* write back and unlock. 0, or -1 when it could not be written */
void state_abandon(void);                      /* unlock without writing */

struct json *state_gpu(const char *uuid);      /* by UUID */
int state_visible(const char *uuid);           /* whole GPU or MIG device of this view */
int state_gpu_visible(const struct json *gpu); /* it, or one of its MIG devices */
int state_in_container(void);                  /* the view of a container that the hook made */
void state_path(char out[], const char *name); /* PATH_MAX bytes: a file of the state directory */

int state_processes(const struct json *gpu, struct process *out, int room); /* listed and claimed; how many */

struct fault fault_meet(const char *symbol, const char *gpu_uuid); /* counts the call; NULL: it has no GPU */
int fault_giving(const char *symbol, const char *gpu_uuid);        /* a call that gives this GPU's handle, by its name */

#endif
