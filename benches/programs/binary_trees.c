#include <stdio.h>
#include <stdlib.h>

struct tree {
    struct tree *left, *right;
};

static struct tree *grow(int depth) {
    struct tree *t = malloc(sizeof *t);
    t->left = depth ? grow(depth - 1) : NULL;
    t->right = depth ? grow(depth - 1) : NULL;
    return t;
}

static long count(struct tree *t) {
    return t ? 1 + count(t->left) + count(t->right) : 0;
}

static void drop(struct tree *t) {
    if (!t) return;
    drop(t->left);
    drop(t->right);
    free(t);
}

int main(void) {
    long sum = 0;
    struct tree *kept = grow(17);
    for (int i = 0; i < 600; i++) {
        struct tree *t = grow(14);
        sum += count(t);
        drop(t);
    }
    sum += count(kept);
    drop(kept);
    printf("%ld\n", sum);
    return 0;
}
