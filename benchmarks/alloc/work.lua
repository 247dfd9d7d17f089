-- SPDX-License-Identifier: MIT
-- A Lua program: tables of tables, strings put together and taken apart, closures. No input.
local count = tonumber(arg[1])
local seed = 12345

local function draw(limit)
  seed = (seed * 1103515245 + 12345) % 2147483648
  return seed // 65536 % limit
end

local function tree(depth)
  if depth == 0 then return {value = draw(1000)} end
  return {left = tree(depth - 1), right = tree(depth - 1), value = draw(1000)}
end

local function sum(node)
  if not node then return 0 end
  return node.value + sum(node.left) + sum(node.right)
end

local records, index = {}, {}
for n = 1, count do
  local name = "item" .. draw(count) .. "-" .. draw(100)
  local record = {name = name, price = draw(10000) / 100, tags = {draw(50), draw(50), draw(50)}}
  records[n] = record
  index[name] = index[name] or {}
  table.insert(index[name], record)
end
table.sort(records, function(a, b) return a.name < b.name end)
local parts = {}
for n, record in ipairs(records) do
  parts[#parts + 1] = string.format("%s=%.2f", record.name, record.price)
  if n % 100 == 0 then
    local line = table.concat(parts, ";")
    parts = {}
    for name in line:gmatch("([^=;]+)=") do index[name][1].seen = true end
  end
end
local makers = {}
for n = 1, count do makers[n % 1000 + 1] = function(x) return x + n end end
local total = 0
for _ = 1, 8 do total = total + sum(tree(15)) end
print(#records, total, makers[1](1))
