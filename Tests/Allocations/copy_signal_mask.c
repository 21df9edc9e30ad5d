// SPDX-License-Identifier: Apache-2.0

// Put in front of the C library with LD_PRELOAD where valgrind runs a Swift program: valgrind 3.19 writes to the mask that
// sigsuspend is called with, and libdispatch's lies in memory that cannot be written.

#define _GNU_SOURCE
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

int sigsuspend(const sigset_t *mask) {
    sigset_t own = *mask;
    return (int)syscall(SYS_rt_sigsuspend, &own, 8);
}
