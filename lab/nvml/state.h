/* The simulated machine: its state file, locks, claims and faults. Knows JSON and MIG, not the NVML API.
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

struct process {
    unsigned pid;
    int64_t mib; /* UNKNOWN_MIB: the driver does not say */
    unsigned gi, ci; /* NO_INSTANCE outside MIG */
    char type; /* C, G or M (MPS) */
    unsigned sm; /* per cent */
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
int state_processes(const struct json *gpu, struct process *out, int room); /* files and claims; returns how many */
int state_fault(const char *symbol, const char *gpu_uuid, int64_t *hang_ms); /* the code to answer, 0 for none */

#endif
