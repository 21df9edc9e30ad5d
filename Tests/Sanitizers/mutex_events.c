// SPDX-License-Identifier: Apache-2.0
//
// Tells ThreadSanitizer of the locking that it cannot see.
//
// Synchronization.Mutex takes its fast path, one atomic exchange, in the module that uses it, where ThreadSanitizer sees
// it. Its slow path, a futex, is compiled into libswiftSynchronization.so, which is not instrumented: whatever one thread
// hands to another through a lock that was contended would be reported as a race. This library is loaded first, takes
// the place of the two slow functions, calls the real ones and notes what they mean: locking acquires what unlocking
// released. The address is the lock's own word, so both paths speak of the same lock.
//
// Source of the lock: https://github.com/swiftlang/swift/blob/swift-6.3.1-RELEASE/stdlib/public/Synchronization/Mutex/LinuxImpl.swift

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// Absent from programs that are not instrumented, such as the one that starts the tests.
__attribute__((weak)) void __tsan_acquire(void *address);
__attribute__((weak)) void __tsan_release(void *address);

#define SWIFT_CALL __attribute__((swiftcall))
#define SWIFT_SELF __attribute__((swift_context))

#define LOCK_SLOW "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK_SLOW "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

typedef SWIFT_CALL void (*lock_function)(uint32_t thread, SWIFT_SELF void *lock);
typedef SWIFT_CALL void (*unlock_function)(SWIFT_SELF void *lock);

SWIFT_CALL void note_lock(uint32_t thread, SWIFT_SELF void *lock) __asm__(LOCK_SLOW);
SWIFT_CALL void note_unlock(SWIFT_SELF void *lock) __asm__(UNLOCK_SLOW);

static void *real(const char *name) {
    void *function = dlsym(RTLD_NEXT, name);
    if (function == NULL) abort();
    return function;
}

SWIFT_CALL void note_lock(uint32_t thread, SWIFT_SELF void *lock) {
    ((lock_function)real(LOCK_SLOW))(thread, lock);
    if (__tsan_acquire) __tsan_acquire(lock);
}

SWIFT_CALL void note_unlock(SWIFT_SELF void *lock) {
    if (__tsan_release) __tsan_release(lock);
    ((unlock_function)real(UNLOCK_SLOW))(lock);
}
