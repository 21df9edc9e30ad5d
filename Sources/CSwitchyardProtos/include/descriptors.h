/* SPDX-License-Identifier: Apache-2.0 */

#ifndef SWITCHYARD_DESCRIPTORS_H
#define SWITCHYARD_DESCRIPTORS_H

#include <stddef.h>

/* A serialized google.protobuf.FileDescriptorSet with every file of Protos/, imports included. */
const unsigned char *switchyard_file_descriptor_set(void);
size_t switchyard_file_descriptor_set_size(void);

#endif
