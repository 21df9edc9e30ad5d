// SPDX-License-Identifier: Apache-2.0

#ifndef SWITCHYARD_EPOLL_H
#define SWITCHYARD_EPOLL_H

#include <stdint.h>

// Linux's epoll, eventfd and timerfd, which Swift's module of the C library leaves out. Their headers stay out of this one: they would
// define the C library's types a second time. Every function that fails returns -1 and sets `errno`.

/// What a descriptor is ready for.
enum {
    SWITCHYARD_READING = 1,
    SWITCHYARD_WRITING = 2,
    /// The descriptor failed, or the peer is gone; reported unasked.
    SWITCHYARD_ENDED = 4,
    /// As a request: report once, then nothing until asked again.
    SWITCHYARD_ONCE = 8,
};

/// One ready descriptor.
struct switchyard_ready {
    /// The number that was given with it.
    uint64_t id;
    /// What it is ready for.
    uint32_t readiness;
};

/// Makes a watcher of descriptors.
int switchyard_epoll(void);

/// Watches a descriptor.
int switchyard_epoll_add(int epoll, int descriptor, uint64_t id, uint32_t readiness);

/// Reports something else of a descriptor.
int switchyard_epoll_change(int epoll, int descriptor, uint64_t id, uint32_t readiness);

/// Stops watching a descriptor.
int switchyard_epoll_remove(int epoll, int descriptor);

/// Waits until a descriptor is ready; a negative time means for ever. Returns how many are.
///
/// Where the system has no epoll_pwait2 (Linux before 5.11, or a filter of system calls), the time is rounded up to milliseconds.
int switchyard_epoll_wait(int epoll, struct switchyard_ready *ready, int room, int64_t nanoseconds);

/// Makes a counter that is readable while it is not 0.
int switchyard_counter(void);

/// Makes a timer that is readable once its time is over.
int switchyard_timer(void);

/// Sets a timer.
int switchyard_timer_set(int timer, int64_t nanoseconds);

#endif
