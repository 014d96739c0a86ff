/* Makes every sync of the process that loads it take longer, by so many microseconds as the file says that
 * ELEA_CHAOS_SYNC names. The file is read anew each time, so that the delay may change while the process
 * runs. For each sync that was delayed one byte is added to the file beside it, named `.count`.
 *
 * System calls are made directly where something else that is loaded may have its own idea of them, as a
 * library that plays with clocks has of sleeping. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long told(const char *path) {
    char text[24] = {0};
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 ? atol(text) : 0;
}

static void linger(void) {
    const char *path = getenv("ELEA_CHAOS_SYNC");
    int before = errno;
    long micros = path ? told(path) : 0;
    if (micros > 0) {
        char name[4096];
        snprintf(name, sizeof name, "%s.count", path);
        struct timespec time = {micros / 1000000, micros % 1000000 * 1000};
        while (syscall(SYS_nanosleep, &time, &time) < 0 && errno == EINTR) {
        }
        int file = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (file >= 0) {
            if (write(file, ".", 1) < 0) { /* It is only counted. */
            }
            close(file);
        }
    }
    errno = before;
}

int fsync(int file) {
    static int (*next)(int);
    if (!next) next = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    linger();
    return next(file);
}

int fdatasync(int file) {
    static int (*next)(int);
    if (!next) next = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    linger();
    return next(file);
}
