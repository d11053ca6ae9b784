/* MIG as the driver knows it: profiles with their real ids, placements, and UUIDs that recur. */
#ifndef DS01_SIM_MIG_H
#define DS01_SIM_MIG_H

#define UUID_TEXT 80

struct profile {
    unsigned id;       /* what create and list calls take: 19, 14, 9, ... */
    unsigned slice;    /* enum index of nvmlDeviceGetGpuInstanceProfileInfo */
    unsigned compute;  /* compute slices, of 7 */
    unsigned size;     /* memory slices, of 8 */
    unsigned max;      /* instances that fit on an empty GPU */
    unsigned media;    /* 1 for the +me profile */
    unsigned starts;   /* bit n: may start at memory slice n */
    unsigned mib, sm;
    const char *name;  /* "3g.20gb" */
};

#define PROFILES 7

const struct profile *mig_profiles(const char *set);                     /* PROFILES rows; NULL: not MIG capable */
const struct profile *mig_profile(const char *set, unsigned id);         /* NULL: no such profile */
unsigned mig_tree_node(unsigned start, unsigned size);                   /* GI id of a placement */
void mig_uuid(const char *gpu_uuid, unsigned gi, unsigned ci, char out[UUID_TEXT]);

#endif
