#include <stdio.h>
#include <stdlib.h>

int main(void) {
    size_t size = 8u << 20;
    unsigned char *p = malloc(size);
    unsigned sum = 0;
    for (size_t i = 0; i < size; i++) p[i] = (unsigned char)(i * 31);
    for (int round = 0; round < 40; round++)
        for (size_t i = 0; i < size; i++) {
            sum = sum * 31 + p[i];
            __asm__("" : "+r"(sum)); // one byte at a time
        }
    printf("%u\n", sum);
    free(p);
    return 0;
}
