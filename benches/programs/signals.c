// raise in a loop, or computation under a timer of 1 kHz.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

static volatile long count;

static void handler(int number) {
    count += number;
}

int main(int argc, char **argv) {
    signal(SIGUSR1, handler);
    signal(SIGALRM, handler);
    unsigned long x = 1;
    if (strcmp(argv[1], "raise") == 0) {
        for (int i = 0; i < 200000; i++) raise(SIGUSR1);
    } else {
        struct itimerval every = {{0, 1000}, {0, 1000}};
        setitimer(ITIMER_REAL, &every, NULL);
        static unsigned table[1024];
        for (long i = 0; i < 200000000; i++) {
            x = x * 6364136223846793005ul + 1442695040888963407ul;
            table[x >> 54]++;
        }
        x += table[5];
    }
    printf("%d\n", count > 0 && x);
    return 0;
}
