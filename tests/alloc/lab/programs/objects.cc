// Objects by all forms of new and delete, and a new that fails and is caught.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

struct alignas(64) Wide {
    char room[192];
};

static __attribute__((noinline)) void *build_objects()
{
    return new char[7201];
}

int main()
{
    delete[] static_cast<char *>(build_objects());
    delete new Wide;
    delete[] new Wide[3];
    delete new (std::nothrow) std::string(7300, 'x');
    std::vector<std::string> words;
    for (int i = 0; i < 100; i++)
        words.push_back(std::string(50 + i, 'y'));
    try {
        volatile size_t much = static_cast<size_t>(-1) / 4;
        std::printf("%p\n", static_cast<void *>(new char[much]));
    } catch (const std::bad_alloc &) {
        delete[] new char[7202];
        std::puts("caught");
    }
    return 0;
}
