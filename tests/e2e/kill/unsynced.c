/* Makes SIGKILL lose what a power cut would: writes to a store's files reach the kernel only when
 * the file is synced. Preload it into a broker (LD_PRELOAD).
 *
 * A sync takes a few milliseconds, as disks do, and covers what had been written when it began.
 *
 * RocksDB's log, manifest and tables are written in order and never read through the same
 * descriptor before they are synced, so that holding writes back is all it takes. Whatever is
 * closed unsynced is passed on: that is lenient, and the log, which matters here, stays open.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define DESCRIPTORS 65536
#define SYNC_US 4000

enum { UNKNOWN, PASSED, HELD };

struct held {
    char kind;
    char *data;
    size_t size, room, passed;
};

static struct held files[DESCRIPTORS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_close)(int), (*real_fsync)(int), (*real_fdatasync)(int);

__attribute__((constructor)) static void find(void) {
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    *(void **)&real_close = dlsym(RTLD_NEXT, "close");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
}

static int ends_with(const char *path, const char *suffix) {
    size_t a = strlen(path), b = strlen(suffix);
    return a >= b && !strcmp(path + a - b, suffix);
}

static char kind_of(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return PASSED;
    path[length] = 0;
    if (!strstr(path, "/store/")) return PASSED;
    return ends_with(path, ".log") || ends_with(path, ".sst") || strstr(path, "MANIFEST") ? HELD : PASSED;
}

/* Pass on the first bytes that are held. */
static int pass_on(int fd, size_t size) {
    struct held *file = &files[fd];
    size_t done = 0;
    while (done < size) {
        ssize_t some = real_write(fd, file->data + done, size - done);
        if (some < 0 && errno == EINTR) continue;
        if (some < 0) return -1;
        done += some;
    }
    file->size -= size;
    file->passed += size;
    memmove(file->data, file->data + size, file->size);
    return 0;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (fd < 0 || fd >= DESCRIPTORS) return real_write(fd, data, size);
    pthread_mutex_lock(&lock);
    struct held *file = &files[fd];
    if (file->kind == UNKNOWN) file->kind = kind_of(fd);
    if (file->kind == PASSED) {
        pthread_mutex_unlock(&lock);
        return real_write(fd, data, size);
    }
    if (file->size + size > file->room) {
        file->room = 2 * (file->size + size);
        file->data = realloc(file->data, file->room);
        if (!file->data) abort();
    }
    memcpy(file->data + file->size, data, size);
    file->size += size;
    pthread_mutex_unlock(&lock);
    return size;
}

static int settle(int fd) {
    if (fd < 0 || fd >= DESCRIPTORS || files[fd].kind != HELD) return 0;
    struct held *file = &files[fd];
    pthread_mutex_lock(&lock);
    size_t target = file->passed + file->size;
    pthread_mutex_unlock(&lock);
    usleep(SYNC_US);
    pthread_mutex_lock(&lock);
    int failed = file->passed < target ? pass_on(fd, target - file->passed) : 0;
    pthread_mutex_unlock(&lock);
    return failed;
}

int fsync(int fd) { return settle(fd) ? -1 : real_fsync(fd); }

int fdatasync(int fd) { return settle(fd) ? -1 : real_fdatasync(fd); }

int close(int fd) {
    if (fd >= 0 && fd < DESCRIPTORS) {
        pthread_mutex_lock(&lock);
        if (files[fd].size) pass_on(fd, files[fd].size);
        free(files[fd].data);
        memset(&files[fd], 0, sizeof files[fd]);
        pthread_mutex_unlock(&lock);
    }
    return real_close(fd);
}
