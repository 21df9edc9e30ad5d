// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE

#include "CEpoll.h"

#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>

enum { ROOM = 64 };

static uint32_t events_of(uint32_t readiness) {
    return (readiness & SWITCHYARD_READING ? EPOLLIN | EPOLLRDHUP : 0) |
           (readiness & SWITCHYARD_WRITING ? EPOLLOUT : 0) | (readiness & SWITCHYARD_ONCE ? EPOLLONESHOT : 0);
}

static uint32_t readiness_of(uint32_t events) {
    return (events & (EPOLLIN | EPOLLRDHUP) ? SWITCHYARD_READING : 0) | (events & EPOLLOUT ? SWITCHYARD_WRITING : 0) |
           (events & (EPOLLERR | EPOLLHUP) ? SWITCHYARD_ENDED : 0);
}

static int control(int epoll, int operation, int descriptor, uint64_t id, uint32_t readiness) {
    struct epoll_event event = {.events = events_of(readiness), .data.u64 = id};
    return epoll_ctl(epoll, operation, descriptor, &event);
}

static int wait_for(int epoll, struct epoll_event *events, int room, int64_t nanoseconds) {
    if (nanoseconds <= 0) return epoll_wait(epoll, events, room, nanoseconds < 0 ? -1 : 0);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
    const struct timespec time = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    int count = epoll_pwait2(epoll, events, room, &time, 0);
    if (count >= 0 || (errno != ENOSYS && errno != EPERM)) return count;
#endif
    int64_t milliseconds = (nanoseconds - 1) / 1000000 + 1;
    return epoll_wait(epoll, events, room, milliseconds > INT_MAX ? INT_MAX : (int)milliseconds);
}

int switchyard_epoll(void) { return epoll_create1(EPOLL_CLOEXEC); }

int switchyard_epoll_add(int epoll, int descriptor, uint64_t id, uint32_t readiness) {
    return control(epoll, EPOLL_CTL_ADD, descriptor, id, readiness);
}

int switchyard_epoll_change(int epoll, int descriptor, uint64_t id, uint32_t readiness) {
    return control(epoll, EPOLL_CTL_MOD, descriptor, id, readiness);
}

int switchyard_epoll_remove(int epoll, int descriptor) { return control(epoll, EPOLL_CTL_DEL, descriptor, 0, 0); }

int switchyard_epoll_wait(int epoll, struct switchyard_ready *ready, int room, int64_t nanoseconds) {
    struct epoll_event events[ROOM];
    int count = wait_for(epoll, events, room < ROOM ? room : ROOM, nanoseconds);
    for (int index = 0; index < count; index++) {
        ready[index].id = events[index].data.u64;
        ready[index].readiness = readiness_of(events[index].events);
    }
    return count;
}

int switchyard_counter(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

int switchyard_timer(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK); }

int switchyard_timer_set(int timer, int64_t nanoseconds) {
    struct itimerspec setting = {
        .it_value = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000},
    };
    return timerfd_settime(timer, 0, &setting, 0);
}
