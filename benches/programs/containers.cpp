// std::map and std::string as application code uses them.
#include <cstdio>
#include <map>
#include <string>
#include <vector>

int main() {
    size_t total = 0;
    for (int round = 0; round < 4; round++) {
        std::map<std::string, std::vector<int>> table;
        for (int i = 0; i < 200000; i++) {
            std::string key = "some key number " + std::to_string(i * 7919 % 20011);
            table[key].push_back(i);
        }
        for (auto &[key, values] : table) total += key.size() * values.size();
    }
    printf("%zu\n", total);
}
