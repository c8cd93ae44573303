// Many cheap calls, chosen by the argument.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int rounds = atoi(argv[2]);
    unsigned long sum = 0;
    char c = 1, path[64];
    int zero = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_WRONLY);
    struct stat st;
    struct timespec t;
    for (int i = 0; i < rounds; i++) {
        switch (argv[1][0]) {
        case 'b': // one byte in, one byte out
            sum += read(zero, &c, 1);
            sum += write(null, &c, 1);
            break;
        case 's':
            stat("/usr/bin", &st);
            sum += st.st_mode;
            break;
        case 'f': { // small files
            snprintf(path, sizeof path, "small%d", i & 15);
            int fd = open(path, O_RDWR | O_CREAT, 0600);
            sum += write(fd, path, 6);
            close(fd);
            if ((i & 15) == 15) unlink(path);
            break;
        }
        default:
            clock_gettime(CLOCK_MONOTONIC, &t);
            sum += t.tv_nsec > 0;
        }
    }
    printf("%d\n", sum > 0);
    return 0;
}
