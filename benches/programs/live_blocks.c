// A million blocks that are alive at exit: the search is what is measured.
#include <stdio.h>
#include <stdlib.h>

struct node {
    struct node *next, *other;
    long room[2];
};

static struct node *head;

int main(void) {
    struct node *last = NULL;
    for (int i = 0; i < 1000000; i++) {
        struct node *node = malloc(sizeof *node);
        node->next = head;
        node->other = i % 3 ? last : head;
        node->room[0] = i;
        if (i % 5 == 0) last = node;
        head = node;
    }
    printf("%ld\n", head->room[0]);
    return 0;
}
