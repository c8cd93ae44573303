//! What is measured: groups, programs, their inputs. Knowledge only; `bench.rs` runs it.
//!
//! Native runs take a few tenths of a second, so that the slowest tool still ends within half a minute.

/// Where a program comes from.
#[derive(Clone, Copy)]
pub enum Code {
    /// A file in `benches/programs` and its additional compiler flags.
    Ours(&'static str, &'static [&'static str]),
    /// The first word of the command, looked up in `PATH`; `cc1` is gcc's own.
    Installed,
}

pub struct Program {
    pub name: &'static str,
    pub code: Code,
    /// Command line, for our own programs without the program.
    pub command: &'static [&'static str],
    /// Further options for the tools.
    pub options: &'static [&'static str],
}

pub struct Group {
    pub name: &'static str,
    /// What the project wants to reach, as a multiple of the native CPU time.
    pub goal: &'static str,
    pub programs: &'static [Program],
}

const fn ours(name: &'static str, file: &'static str, args: &'static [&'static str]) -> Program {
    Program { name, code: Code::Ours(file, &[]), command: args, options: &[] }
}

const fn built(name: &'static str, file: &'static str, flags: &'static [&'static str], args: &'static [&'static str]) -> Program {
    Program { name, code: Code::Ours(file, flags), command: args, options: &[] }
}

const fn installed(name: &'static str, command: &'static [&'static str]) -> Program {
    Program { name, code: Code::Installed, command, options: &[] }
}

pub const GROUPS: &[Group] = &[
    Group {
        name: "start",
        goal: "15 ms hello, 120 ms python",
        programs: &[
            ours("hello", "hello.c", &[]),
            installed("python-pass", &["/usr/bin/python3", "-c", "pass"]),
            installed("perl-pass", &["perl", "-e", "1"]),
            installed("sh-true", &["sh", "-c", "true"]),
        ],
    },
    Group {
        name: "compute",
        goal: "2.0",
        programs: &[
            installed("bzip2", &["bzip2", "-kc", "text"]),
            installed("xz", &["xz", "-T1", "-2", "-kc", "text"]),
            installed("gzip", &["gzip", "-kc9", "text"]),
            installed("zstd", &["zstd", "-q", "-11", "-T1", "-kc", "text"]),
            installed("lua", &["lua", "script.lua"]),
            installed("perl", &["perl", "script.pl"]),
            installed("python", &["/usr/bin/python3", "script.py"]),
            installed("sqlite3", &["sqlite3", ":memory:", ".read script.sql"]),
            installed(
                "awk",
                &[
                    "awk",
                    "{ for (i = 1; i <= NF; i++) n[$i]++; s += length($0) * 3; gsub(/words/, \"w\"); t = t + index($0, \"xyz\") } END { for (i in n) s += n[i]; print s, t }",
                    "text",
                ],
            ),
            installed("jq", &["jq", "[.[] | select(.id % 3 == 0) | .tags | map(. * 2) | add] | add", "data.json"]),
            installed("sort", &["sort", "--parallel=1", "-k7,7", "-k1,1n", "text", "text", "text", "text"]),
            installed("cc1", &["cc1", "-quiet", "-O1", "source.c", "-o", "/dev/null"]),
        ],
    },
    Group {
        name: "heap",
        goal: "2.5",
        programs: &[
            ours("malloc-free", "malloc_free.c", &[]),
            ours("containers", "containers.cpp", &[]),
            ours("binary-trees", "binary_trees.c", &[]),
            ours("realloc", "realloc.c", &[]),
        ],
    },
    Group {
        name: "calls",
        goal: "2.0",
        programs: &[ours("fib", "fib.c", &[]), ours("qsort", "qsort.c", &[]), ours("virtual", "virtual_calls.cpp", &[])],
    },
    Group {
        name: "streaming",
        goal: "1.8",
        programs: &[
            ours("memcpy", "memory_streams.c", &["c", "60"]),
            ours("memset", "memory_streams.c", &["s", "100"]),
            ours("strlen", "memory_streams.c", &["l", "150"]),
            ours("byte-loop", "byte_loop.c", &[]),
            ours("matrix", "matrix.c", &[]),
            built("sse", "vector_loop.c", &["-O3", "-ffast-math"], &[]),
            built("avx", "vector_loop.c", &["-O3", "-ffast-math", "-mavx2"], &[]),
        ],
    },
    Group {
        name: "syscalls",
        goal: "1.3",
        programs: &[
            ours("1-byte", "system_calls.c", &["b", "1000000"]),
            ours("stat", "system_calls.c", &["s", "500000"]),
            ours("small-files", "system_calls.c", &["f", "100000"]),
            ours("time", "system_calls.c", &["t", "10000000"]),
        ],
    },
    Group {
        name: "threads",
        goal: "2.0, wall shows all cores",
        programs: &[ours("one-thread", "two_threads.c", &["1"]), ours("two-threads", "two_threads.c", &["2"])],
    },
    Group { name: "exceptions", goal: "4", programs: &[ours("throw", "exceptions.cpp", &[])] },
    Group {
        name: "signals",
        goal: "3 by timer",
        programs: &[ours("timer-1khz", "signals.c", &["timer"]), ours("raise", "signals.c", &["raise"])],
    },
    Group {
        name: "dirty",
        goal: "8",
        programs: &[
            ours("structs", "dirty_structs.c", &[]),
            ours("bit-fields", "dirty_bits.c", &[]),
            ours("buffers", "dirty_buffers.c", &[]),
            ours("words", "dirty_words.c", &[]),
        ],
    },
    Group {
        name: "leaks",
        goal: "0.5 s search, 1 s report",
        programs: &[
            ours("live-blocks", "live_blocks.c", &[]),
            Program {
                name: "leak-records",
                code: Code::Ours("leak_records.c", &[]),
                command: &[],
                options: &["--leak-check=full", "--num-callers=30"],
            },
        ],
    },
];

/// A shell script that makes every input file in the current directory.
pub const INPUTS: &str = r#"
seq 1 400000 | awk '{ printf "%d some words of line %d and %s\n", ($1 * 7919) % 100003, $1, substr("abcdefghijklmnopqrstuvwxyz", $1 % 20) }' | head -c 5000000 > text
printf '\n' >> text
cat > script.lua <<'END'
local t = {}
for i = 1, 300000 do t[i] = (i * 7919) % 100003 end
table.sort(t)
local words, n = {}, 0
for i = 1, 200000 do
  local key = "key" .. (i % 5003)
  words[key] = (words[key] or 0) + #key
end
for k, v in pairs(words) do n = n + v end
local s = 0
for i = 1, 3000000 do s = (s * 31 + i) % 1000007 end
print(t[1], n, s)
END
cat > script.pl <<'END'
my (%h, $s);
for my $i (1 .. 1500000) { my $k = "key" . ($i * 7919 % 5003); $h{$k} .= chr(65 + $i % 26); $s = ($s * 31 + $i) % 1000007; }
my $text = join " ", map { "$_=$h{$_}" } sort keys %h;
my $n = () = $text =~ /(\w+)=([A-M]+)/g;
$text =~ s/([a-z])([0-9])/$2$1/g;
print "$s $n ", length $text, "\n";
END
cat > script.py <<'END'
import re
table = {}
s = 0
for i in range(300000):
    key = "key%d" % (i * 7919 % 5003)
    table.setdefault(key, []).append(i)
    s = (s * 31 + i) % 1000007
class Point:
    def __init__(self, x, y): self.x, self.y = x, y
    def add(self, other): return Point(self.x + other.x, self.y + other.y)
p = Point(0, 0)
for i in range(200000): p = p.add(Point(i, 1))
words = re.findall(r"[a-z]+", "the quick brown fox " * 20000)
print(s, p.x, len(words), sum(len(v) for v in sorted(table.values())))
END
cat > script.sql <<'END'
create table t(id integer primary key, name text, x real);
with recursive c(i) as (select 1 union all select i + 1 from c where i < 120000)
insert into t select i, 'name' || (i * 7919 % 5003), i * 1.5 from c;
create index by_name on t(name);
select count(*), sum(x) from t where name like '%7%';
select name, count(*), avg(x) from t group by name order by 3 desc limit 3;
select count(*) from t a join t b on a.name = b.name and a.id < b.id;
update t set x = x * 2 where id % 7 = 0;
delete from t where id % 11 = 0;
select sum(length(name)), max(x) from t;
END
{ printf '['; seq 1 40000 | awk '{ printf "{\"id\":%d,\"name\":\"name %d\",\"tags\":[%d,%d,1.5]},", $1, $1, $1 * 3, $1 % 7 }'; printf '{"id":1,"tags":[1]}]'; } > data.json
{ printf '#include <stdio.h>\nstruct s { int a; double b; struct s *next; };\n'
  seq 1 110 | awk '{ printf "int f%d(struct s *p, int n) { int sum = 0; for (int i = 0; i < n; i++) { if (p->a > i * %d) sum += p->a ^ i; else p->b *= %d.5; switch (i & 3) { case 0: sum -= n; break; case 1: sum <<= 1; break; default: p = p->next ? p->next : p; } } printf(\"%%d\\n\", sum); return sum + %d; }\n", $1, $1, $1, $1 }'; } > pre.c
gcc -E -P pre.c -o source.c
"#;
