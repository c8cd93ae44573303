// Hot copies of structs with padding.
#include <stdio.h>
#include <stdlib.h>

struct record {
    char tag;
    int number;
    short small;
    double real;
};

__attribute__((noinline)) static void move(struct record *to, const struct record *from) {
    *to = *from;
}

int main(void) {
    enum { N = 1000 };
    struct record *a = malloc(N * sizeof *a), *b = malloc(N * sizeof *b);
    for (int i = 0; i < N; i++) a[i].tag = (char)i, a[i].number = i, a[i].small = 1, a[i].real = i;
    long sum = 0;
    for (int round = 0; round < 160000; round++) {
        for (int i = 0; i < N; i++) move(&b[i], &a[N - 1 - i]);
        sum += b[round % N].number + b[round % N].tag;
    }
    printf("%ld\n", sum);
    free(a);
    free(b);
    return 0;
}
