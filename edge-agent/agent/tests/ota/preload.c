/* What a program asks of the file system beneath one folder: counted, written down, and at one operation answered
 * with a fault. Loaded before a program by LD_PRELOAD, so that its own binary, SQLite included, is what is tried.
 *
 * OTA_ROOT    the folder; everything elsewhere is left alone
 * OTA_RECORD  file to which each operation that changed something is written, in order
 * OTA_FAULT   "N error", "N kill", "N full" or "N clock SECONDS": at the Nth operation, from 0, it fails with EIO; the
 *             process is killed; from there on nothing that takes room succeeds; the wall clock jumps
 * OTA_KILL_AFTER  the process is killed once it has said this on standard output
 * OTA_SYNCED  "1" or "0": what is said of whether a time server keeps the clock
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PATH_BYTES (PATH_MAX * 2)

static const char *root;
static size_t root_length;
static int record = -1;
static long fault_at = -1;
static char fault[16];
static long long jump_seconds;
static const char *last_words;
static int synced = -1;
static long operations;
static int jumped;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void)
{
    const char *told;
    root = getenv("OTA_ROOT");
    root_length = root ? strlen(root) : 0;
    if ((told = getenv("OTA_FAULT")))
        sscanf(told, "%ld %15s %lld", &fault_at, fault, &jump_seconds);
    last_words = getenv("OTA_KILL_AFTER");
    if ((told = getenv("OTA_SYNCED")))
        synced = atoi(told);
    if ((told = getenv("OTA_RECORD")))
        record = (int)syscall(SYS_openat, AT_FDCWD, told, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

#define NEXT(result, name, ...)                                                                                        \
    static result (*next)(__VA_ARGS__);                                                                                \
    if (!next)                                                                                                         \
    next = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int beneath(const char *path)
{
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* Where a descriptor leads, if that is beneath the folder and was not removed. */
static int path_of(int fd, char *path)
{
    char link[64];
    ssize_t length;
    if (!root_length)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return beneath(path) && !(length > 10 && !strcmp(path + length - 10, " (deleted)"));
}

static int resolved(int dir, const char *name, char *path)
{
    size_t length;
    if (!root_length || !name)
        return 0;
    if (name[0] == '/' || dir == AT_FDCWD) {
        snprintf(path, PATH_BYTES, "%s", name);
        return beneath(path);
    }
    if (!path_of(dir, path))
        return 0;
    length = strlen(path);
    snprintf(path + length, PATH_BYTES - length, "/%s", name);
    return 1;
}

static void put(const void *bytes, size_t count)
{
    const char *at = bytes;
    while (count) {
        ssize_t done = syscall(SYS_write, record, at, count);
        if (done <= 0)
            return;
        at += done;
        count -= (size_t)done;
    }
}

/* One entry: kind, number of the operation, a number of its own, and three pieces with their lengths. */
static void note(char kind, uint64_t value, const char *path, const char *to, const void *bytes, uint64_t length)
{
    uint64_t number = (uint64_t)operations - 1, path_length = path ? strlen(path) : 0, to_length = to ? strlen(to) : 0;
    if (record < 0)
        return;
    put(&kind, 1);
    put(&number, 8);
    put(&value, 8);
    put(&path_length, 8);
    put(&to_length, 8);
    put(&length, 8);
    put(path, path_length);
    put(to, to_length);
    put(bytes, length);
}

/* Counts an operation; with the lock held until `done`. The error that it is to fail with, or 0. */
static int judged(int grows)
{
    long number;
    pthread_mutex_lock(&mutex);
    number = operations++;
    if (fault_at < 0 || number < fault_at)
        return 0;
    if (!strcmp(fault, "full"))
        return grows ? ENOSPC : 0;
    if (number > fault_at)
        return 0;
    if (!strcmp(fault, "kill"))
        syscall(SYS_kill, getpid(), SIGKILL);
    if (!strcmp(fault, "clock"))
        jumped = 1;
    return strcmp(fault, "error") ? 0 : EIO;
}

static void done(void)
{
    int kept = errno;
    pthread_mutex_unlock(&mutex);
    errno = kept;
}

static int refused(int error)
{
    pthread_mutex_unlock(&mutex);
    errno = error;
    return -1;
}

static int opened(int dir, const char *name, int flags, mode_t mode)
{
    NEXT(int, "openat64", int, const char *, int, mode_t);
    char path[PATH_BYTES];
    struct stat found;
    int is_new, error, fd;
    if ((flags & O_DIRECTORY) || !resolved(dir, name, path))
        return next(dir, name, flags, mode);
    is_new = (flags & O_CREAT) && fstatat(dir, name, &found, 0) != 0;
    if ((error = judged(is_new)))
        return refused(error);
    fd = next(dir, name, flags, mode);
    if (fd >= 0 && is_new)
        note('c', 0, path, NULL, NULL, 0);
    else if (fd >= 0 && (flags & O_TRUNC))
        note('t', 0, path, NULL, NULL, 0);
    done();
    return fd;
}

static mode_t mode_of(int flags, va_list rest)
{
    return (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        mode_t mode;                                                                                                   \
        va_start(rest, flags);                                                                                         \
        mode = mode_of(flags, rest);                                                                                   \
        va_end(rest);                                                                                                  \
        return opened(AT_FDCWD, path, flags, mode);                                                                    \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int dir, const char *path, int flags, ...)                                                                \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        mode_t mode;                                                                                                   \
        va_start(rest, flags);                                                                                         \
        mode = mode_of(flags, rest);                                                                                   \
        va_end(rest);                                                                                                  \
        return opened(dir, path, flags, mode);                                                                         \
    }
OPENAT(openat)
OPENAT(openat64)

static ssize_t has_read(int fd, void *bytes, size_t count, off64_t at)
{
    NEXT(ssize_t, "pread64", int, void *, size_t, off64_t);
    static ssize_t (*plain)(int, void *, size_t);
    char path[PATH_BYTES];
    ssize_t read_count;
    int error;
    if (!plain)
        plain = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    if (!path_of(fd, path))
        return at < 0 ? plain(fd, bytes, count) : next(fd, bytes, count, at);
    if ((error = judged(0)))
        return refused(error);
    read_count = at < 0 ? plain(fd, bytes, count) : next(fd, bytes, count, at);
    done();
    return read_count;
}

ssize_t read(int fd, void *bytes, size_t count) { return has_read(fd, bytes, count, -1); }
ssize_t pread(int fd, void *bytes, size_t count, off_t at) { return has_read(fd, bytes, count, at); }
ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) { return has_read(fd, bytes, count, at); }

static ssize_t written(int fd, const void *bytes, size_t count, off64_t at)
{
    NEXT(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    static ssize_t (*plain)(int, const void *, size_t);
    char path[PATH_BYTES];
    ssize_t write_count;
    struct stat found;
    off64_t from = at;
    int error;
    if (!plain)
        plain = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (fd == STDOUT_FILENO) {
        pthread_mutex_lock(&mutex);
        note('M', 0, NULL, NULL, bytes, count);
        if (last_words && memmem(bytes, count, last_words, strlen(last_words)))
            syscall(SYS_kill, getpid(), SIGKILL);
        done();
    }
    if (!path_of(fd, path))
        return at < 0 ? plain(fd, bytes, count) : next(fd, bytes, count, at);
    if ((error = judged(1)))
        return refused(error);
    if (at < 0) {
        from = lseek64(fd, 0, SEEK_CUR);
        if ((fcntl(fd, F_GETFL) & O_APPEND) && !fstat(fd, &found))
            from = found.st_size;
    }
    write_count = at < 0 ? plain(fd, bytes, count) : next(fd, bytes, count, at);
    if (write_count > 0)
        note('w', (uint64_t)from, path, NULL, bytes, (uint64_t)write_count);
    done();
    return write_count;
}

ssize_t write(int fd, const void *bytes, size_t count) { return written(fd, bytes, count, -1); }
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return written(fd, bytes, count, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) { return written(fd, bytes, count, at); }

/* A short write is a write: the caller goes on with the rest. */
ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    int i;
    for (i = 0; i < count; i++)
        if (pieces[i].iov_len)
            return write(fd, pieces[i].iov_base, pieces[i].iov_len);
    return 0;
}

/* Whoever copies then reads and writes. */
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *to_at, size_t count, unsigned flags)
{
    (void)from, (void)at, (void)to, (void)to_at, (void)count, (void)flags;
    errno = ENOSYS;
    return -1;
}

static int cut(int fd, off64_t length)
{
    NEXT(int, "ftruncate64", int, off64_t);
    char path[PATH_BYTES];
    struct stat found = {0};
    int error, result;
    if (!path_of(fd, path))
        return next(fd, length);
    fstat(fd, &found);
    if ((error = judged(length > found.st_size)))
        return refused(error);
    result = next(fd, length);
    if (!result)
        note('t', (uint64_t)length, path, NULL, NULL, 0);
    done();
    return result;
}

int ftruncate(int fd, off_t length) { return cut(fd, length); }
int ftruncate64(int fd, off64_t length) { return cut(fd, length); }

static int synced_to_disk(int fd, const char *name)
{
    char path[PATH_BYTES];
    struct stat found = {0};
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int error, result;
    if (!path_of(fd, path))
        return next(fd);
    if ((error = judged(0)))
        return refused(error);
    result = next(fd);
    fstat(fd, &found);
    if (!result)
        note(S_ISDIR(found.st_mode) ? 'd' : 's', 0, path, NULL, NULL, 0);
    done();
    return result;
}

int fsync(int fd) { return synced_to_disk(fd, "fsync"); }
int fdatasync(int fd) { return synced_to_disk(fd, "fdatasync"); }

static int named(char kind, int grows, int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    char path[PATH_BYTES], other[PATH_BYTES];
    int error, result, ours = resolved(from_dir, from, path);
    long call = kind == 'r' ? SYS_renameat2 : SYS_linkat;
    if (!ours || !resolved(to_dir, to, other))
        return (int)syscall(call, from_dir, from, to_dir, to, flags);
    if ((error = judged(grows)))
        return refused(error);
    result = (int)syscall(call, from_dir, from, to_dir, to, flags);
    if (!result)
        note(kind, 0, path, other, NULL, 0);
    done();
    return result;
}

int rename(const char *from, const char *to) { return named('r', 0, AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return named('r', 0, a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned f) { return named('r', 0, a, from, b, to, (int)f); }
int link(const char *from, const char *to) { return named('l', 1, AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int a, const char *from, int b, const char *to, int f) { return named('l', 1, a, from, b, to, f); }

static int removed(int dir, const char *name, int flags)
{
    char path[PATH_BYTES];
    int error, result;
    if (!resolved(dir, name, path))
        return (int)syscall(SYS_unlinkat, dir, name, flags);
    if ((error = judged(0)))
        return refused(error);
    result = (int)syscall(SYS_unlinkat, dir, name, flags);
    if (!result)
        note((flags & AT_REMOVEDIR) ? 'x' : 'u', 0, path, NULL, NULL, 0);
    done();
    return result;
}

int unlink(const char *name) { return removed(AT_FDCWD, name, 0); }
int unlinkat(int dir, const char *name, int flags) { return removed(dir, name, flags); }
int rmdir(const char *name) { return removed(AT_FDCWD, name, AT_REMOVEDIR); }

static int made(int dir, const char *name, mode_t mode)
{
    char path[PATH_BYTES];
    int error, result;
    if (!resolved(dir, name, path))
        return (int)syscall(SYS_mkdirat, dir, name, mode);
    if ((error = judged(1)))
        return refused(error);
    result = (int)syscall(SYS_mkdirat, dir, name, mode);
    if (!result)
        note('m', 0, path, NULL, NULL, 0);
    done();
    return result;
}

int mkdir(const char *name, mode_t mode) { return made(AT_FDCWD, name, mode); }
int mkdirat(int dir, const char *name, mode_t mode) { return made(dir, name, mode); }

int clock_gettime(clockid_t clock, struct timespec *time)
{
    NEXT(int, "clock_gettime", clockid_t, struct timespec *);
    int result = next(clock, time);
    if (clock == CLOCK_REALTIME && jumped)
        time->tv_sec += jump_seconds;
    return result;
}

int adjtimex(struct timex *timex)
{
    NEXT(int, "adjtimex", struct timex *);
    int result = next(timex);
    if (synced >= 0) {
        timex->status = synced ? timex->status & ~STA_UNSYNC : timex->status | STA_UNSYNC;
        result = synced ? TIME_OK : TIME_ERROR;
    }
    return result;
}
