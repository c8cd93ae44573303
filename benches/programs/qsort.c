#include <stdio.h>
#include <stdlib.h>

static int compare(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

int main(void) {
    enum { N = 1000000 };
    int *array = malloc(N * sizeof *array);
    unsigned seed = 1;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < N; i++) array[i] = (int)(seed = seed * 1103515245 + 12345);
        qsort(array, N, sizeof *array, compare);
    }
    printf("%d\n", array[N / 2]);
    free(array);
    return 0;
}
