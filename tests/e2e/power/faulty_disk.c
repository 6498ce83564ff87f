/* A disk that fails as disks do, between a process and the kernel. Preload it (LD_PRELOAD).
 *
 * It notes how much of each file has been synced, in a file that it shares with the test: whatever
 * was written behind that, a power cut may take (cuts.py does so once the process is dead). Nothing
 * is held back meanwhile, so the process reads what it has written, through any descriptor. A sync
 * covers what had been written when it began, and takes as long as it is told.
 *
 * Writes and syncs fail where a rule says so. As on Linux, a sync that fails has dropped what it was
 * to write, says so once, and the next one succeeds; a disk that runs full takes the first half of a
 * write and refuses the rest.
 *
 * Variables, read when the process starts; the rules can be changed in the shared file later on:
 *   FAULTY_DISK_STATE       the shared file; without it nothing is done
 *   FAULTY_DISK_FOLDER      files below this count, others are left alone
 *   FAULTY_DISK_FILES       and only if their names have this in them (failures, not the notes)
 *   FAULTY_DISK_SYNC_MS     how long a sync takes at least
 *   FAULTY_DISK_FAIL_SYNC   ERROR@N or ERROR@N+COUNT: the Nth sync fails, COUNT of them from there
 *   FAULTY_DISK_FAIL_WRITE  the same for writes; ERROR is EIO or ENOSPC
 *
 * Overwriting in place, names and deletions count as durable at once.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define FILES 16384

/* disk.py has the same. */
struct rule {
    uint64_t spared, failing, error; /* so many are spared yet, and so many fail then */
    uint64_t done, failed, failed_last; /* so many there were, so many failed, the last one was this */
};

struct file {
    uint64_t inode, synced, dropped_from, dropped_to;
};

struct state {
    uint64_t sync_us;
    struct rule sync, write;
    struct file files[FILES];
};

static struct state *state;
static char folder[4096], only[256];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int (*real_open)(const char *, int, ...), (*real_openat)(int, const char *, int, ...);
static int (*real_fsync)(int), (*real_fdatasync)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);

static void die(const char *why) {
    fprintf(stderr, "faulty disk: %s\n", why);
    abort();
}

static void parse(struct rule *rule, const char *name) {
    const char *text = getenv(name);
    char error[16] = "";
    unsigned long long first = 0, count = 1;
    memset(rule, 0, sizeof *rule);
    if (!text || !*text) return;
    if (sscanf(text, "%15[A-Z]@%llu+%llu", error, &first, &count) < 2 || !first) die(text);
    rule->error = !strcmp(error, "EIO") ? EIO : !strcmp(error, "ENOSPC") ? ENOSPC : 0;
    if (!rule->error) die(text);
    rule->spared = first - 1;
    rule->failing = count;
}

__attribute__((constructor)) static void begin(void) {
    *(void **)&real_open = dlsym(RTLD_NEXT, "open64");
    *(void **)&real_openat = dlsym(RTLD_NEXT, "openat64");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    *(void **)&real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    const char *path = getenv("FAULTY_DISK_STATE"), *where = getenv("FAULTY_DISK_FOLDER");
    const char *files = getenv("FAULTY_DISK_FILES"), *sync_ms = getenv("FAULTY_DISK_SYNC_MS");
    if (!path) return;
    if (!where || !realpath(where, folder)) die("FAULTY_DISK_FOLDER is not there");
    snprintf(only, sizeof only, "%s", files ? files : "");
    int fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) die("FAULTY_DISK_STATE cannot be opened");
    void *shared = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) die("FAULTY_DISK_STATE cannot be mapped");
    close(fd);
    state = shared;
    state->sync_us = sync_ms ? (uint64_t)(1000 * atof(sync_ms)) : 0;
    parse(&state->sync, "FAULTY_DISK_FAIL_SYNC");
    parse(&state->write, "FAULTY_DISK_FAIL_WRITE");
}

/* Whether a descriptor is of a file that counts; *fails is whether it may fail, too. */
static int counts(int fd, struct stat *found, int *fails) {
    char link[64], path[4096];
    size_t below = strlen(folder);
    if (!state || fstat(fd, found) || !S_ISREG(found->st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, below) || path[below] != '/') return 0;
    *fails = !*only || strstr(strrchr(path, '/'), only) != NULL;
    return 1;
}

/* The note on a file; the lock is held. */
static struct file *note_of(uint64_t inode) {
    for (size_t i = 0; i < FILES; i++) {
        struct file *file = &state->files[(inode + i) % FILES];
        if (!file->inode) file->inode = inode;
        if (file->inode == inode) return file;
    }
    die("too many files");
    return NULL;
}

/* Count one; return the error that it is to fail with, 0 where it is not. */
static int failing(struct rule *rule) {
    int error = 0;
    pthread_mutex_lock(&lock);
    rule->done++;
    if (rule->failing && rule->spared) {
        rule->spared--;
    } else if (rule->failing) {
        rule->failing--;
        rule->failed++;
        rule->failed_last = rule->done;
        error = rule->error;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

/* A file that begins empty has nothing on the disk, though its inode may have been another's. */
static int opened(int fd) {
    struct stat found;
    int fails, before = errno;
    if (fd >= 0 && counts(fd, &found, &fails) && !found.st_size) {
        pthread_mutex_lock(&lock);
        struct file *file = note_of(found.st_ino);
        file->synced = file->dropped_from = file->dropped_to = 0;
        pthread_mutex_unlock(&lock);
    }
    errno = before;
    return fd;
}

#define MODE                                              \
    mode_t mode = 0;                                      \
    if (flags & (O_CREAT | O_TMPFILE)) {                  \
        va_list rest;                                     \
        va_start(rest, flags);                            \
        mode = va_arg(rest, mode_t);                      \
        va_end(rest);                                     \
    }

int open(const char *path, int flags, ...) { MODE return opened(real_open(path, flags, mode)); }

int open64(const char *path, int flags, ...) { MODE return opened(real_open(path, flags, mode)); }

int openat(int at, const char *path, int flags, ...) {
    MODE return opened(real_openat(at, path, flags, mode));
}

int openat64(int at, const char *path, int flags, ...) {
    MODE return opened(real_openat(at, path, flags, mode));
}

/* Return how much of a write is to be done; 0 with errno set where it is to fail. */
static size_t allowed(int fd, size_t size) {
    struct stat found;
    int fails = 0;
    if (!size || !counts(fd, &found, &fails) || !fails) return size;
    int error = failing(&state->write);
    if (!error) return size;
    errno = error;
    return error == ENOSPC && state->write.failed == 1 ? size / 2 : 0;
}

ssize_t write(int fd, const void *data, size_t size) {
    size_t some = allowed(fd, size);
    return some || !size ? real_write(fd, data, some) : -1;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    size_t some = allowed(fd, size);
    return some || !size ? real_pwrite(fd, data, some, at) : -1;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return pwrite(fd, data, size, at); }

static int sync_file(int fd, int (*real)(int)) {
    struct stat found;
    int fails = 0;
    if (!counts(fd, &found, &fails)) return real(fd);
    int error = fails ? failing(&state->sync) : 0;
    usleep(state->sync_us);
    int failed = error ? -1 : real(fd);
    pthread_mutex_lock(&lock);
    struct file *file = note_of(found.st_ino);
    uint64_t size = found.st_size;
    if (error && size > file->synced) {
        /* These pages count as written from now on, and are not. */
        if (file->dropped_to <= file->dropped_from) file->dropped_from = file->synced;
        file->dropped_to = size;
    }
    if (!failed && size > file->synced) file->synced = size;
    pthread_mutex_unlock(&lock);
    if (error) errno = error;
    return failed;
}

int fsync(int fd) { return sync_file(fd, real_fsync); }

int fdatasync(int fd) { return sync_file(fd, real_fdatasync); }
