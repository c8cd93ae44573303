// Independent computation, in as many threads as the argument says; the work per thread is the same.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void *work(void *unused) {
    enum { N = 1 << 14 };
    unsigned *p = malloc(N * sizeof *p), sum = 0;
    for (int i = 0; i < N; i++) p[i] = i;
    for (int round = 0; round < 12000; round++)
        for (int i = 1; i < N; i++) p[i] ^= p[i - 1] * 31 + (unsigned)round;
    for (int i = 0; i < N; i++) sum += p[i];
    free(p);
    return (void *)(long)sum;
}

int main(int argc, char **argv) {
    int n = argc > 1 ? atoi(argv[1]) : 2;
    pthread_t threads[16];
    long sum = 0;
    for (int i = 0; i < n; i++) pthread_create(&threads[i], NULL, work, NULL);
    for (int i = 0; i < n; i++) {
        void *result;
        pthread_join(threads[i], &result);
        sum += (long)result;
    }
    printf("%ld\n", sum);
    return 0;
}
