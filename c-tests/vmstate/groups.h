/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The groups of cases, one file each. Arguments are those after the group's
 * name; results are exit codes.
 */
#ifndef VMSTATE_TEST_GROUPS_H
#define VMSTATE_TEST_GROUPS_H

int group_scalars(int argc, char **argv);
int group_arrays(int argc, char **argv);
int group_structs(int argc, char **argv);
int group_hooks(int argc, char **argv);
int group_subsections(int argc, char **argv);
int group_containers(int argc, char **argv);
int group_devices(int argc, char **argv);
int group_descriptors(int argc, char **argv);
int group_random(int argc, char **argv);

#endif
