/* SPDX-License-Identifier: Apache-2.0 */

#ifndef SWITCHYARD_CSWITCHYARDPROTOS_H
#define SWITCHYARD_CSWITCHYARDPROTOS_H

#include "descriptors.h"
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "inference/open_inference.pb-c.h"
#include "switchyard/v1/expert_host.pb-c.h"
#include "switchyard/v1/gateway.pb-c.h"
#include "switchyard/v1/training.pb-c.h"
#include "switchyard/v1/types.pb-c.h"

#endif
