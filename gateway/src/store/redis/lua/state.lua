-- The shared state: fields, a version and the sum of their bytes (names and values).

-- Makes sure that the fields named are in `c.fields`: name -> value, or false for none.
local function load(c, names)
  local missing = {}
  for _, name in ipairs(names) do
    if c.fields[name] == nil then
      if c.fresh or c.all_fields then c.fields[name] = false else missing[#missing + 1] = name end
    end
  end
  if #missing == 0 then return end
  local values = many(read, 'HMGET', c.keys[STATE], missing, #missing)
  for k, name in ipairs(missing) do c.fields[name] = values[k] end
end

local function load_all(c)
  if c.all_fields then return end
  local stored = c.fresh and {} or read('HGETALL', c.keys[STATE])
  for k = 1, #stored, 2 do
    if c.fields[stored[k]] == nil then c.fields[stored[k]] = stored[k + 1] end
  end
  c.all_fields = true
end

local function members_of(fields, names)
  local out, done = {}, {}
  for _, name in ipairs(names) do
    if fields[name] and not done[name] then
      out[#out + 1] = quote(name) .. ':' .. fields[name]
      done[name] = true
    end
  end
  return concat(out, ',')
end

local function all_state(c)
  load_all(c)
  local out = {}
  for name, value in pairs(c.fields) do
    if value then out[#out + 1] = quote(name) .. ':' .. value end
  end
  return concat(out, ',')
end

-- G: number of fields, or -1 for all, and the names. Answer: text.
OPS.G = function(c, i, at)
  local n = tonumber(c.argv[i])
  local stop = i + 1 + max(n, 0)
  if c.shut then
    gone(c, at)
    return stop
  end
  cold(c)
  rest(c)
  local state
  if n < 0 then
    state = all_state(c)
  else
    local names = {}
    for k = 1, n do names[k] = c.argv[i + k] end
    load(c, names)
    state = members_of(c.fields, names)
  end
  c.out[at] = '{"version":' .. c.version .. ',"state":{' .. state .. '},"seq":' .. c.seq .. '}'
  return stop
end

-- The JSON of a sum: an integer where it is one within 2^53, else the shortest text that reads back. Nil for none.
local function number(x)
  if x ~= x or x == math.huge or x == -math.huge then return nil end
  if x == floor(x) and x >= -9007199254740992 and x <= 9007199254740992 then
    return x == 0 and '0' or format('%.0f', x)
  end
  for digits = 15, 17 do
    local text = format('%.' .. digits .. 'g', x)
    if tonumber(text) == x then return text end
  end
end

-- S: key, by (JSON), version expected or empty, set: a list of name and value, remove: a list of names, increment: a list of
-- name and number. No name comes twice. Answer: { version, seq }.
OPS.S = function(c, i, at)
  local argv, key = c.argv, c.argv[i]
  i = i + 1
  local expected = argv[i + 1]
  local n = tonumber(argv[i + 2])
  local j = i + 3 + 2 * n
  local m = tonumber(argv[j])
  local l = j + 1 + m
  local p = tonumber(argv[l])
  local stop = l + 1 + 2 * p
  if c.shut then
    gone(c, at)
    return stop
  end
  if happened(c, at, key) or hindered(c, at, 'state', c.guard and plain(argv[i])) then return stop end
  cold(c)
  rest(c)
  local names = {}
  for k = i + 3, j - 1, 2 do names[#names + 1] = argv[k] end
  for k = j + 1, l - 1 do names[#names + 1] = argv[k] end
  for k = l + 1, stop - 1, 2 do names[#names + 1] = argv[k] end
  load(c, names)
  local fields = c.fields
  if expected ~= '' and tonumber(expected) ~= c.version then
    refuse(c, at, 'conflict', 'the state has another version',
      '"version":' .. c.version .. ',"fields":{' .. members_of(fields, names) .. '}')
    return stop
  end
  local after, set, remove, bytes = {}, {}, {}, c.sb
  for k = i + 3, j - 1, 2 do
    after[argv[k]] = argv[k + 1]
    set[#set + 1] = quote(argv[k]) .. ':' .. argv[k + 1]
  end
  for k = j + 1, l - 1 do
    after[argv[k]] = false
    remove[#remove + 1] = quote(argv[k])
  end
  for k = l + 1, stop - 1, 2 do
    local name = argv[k]
    local old = fields[name] or '0'
    local value = match(old, '^%-?%d') and tonumber(old)
    value = value and number(value + tonumber(argv[k + 1]))
    if not value then
      refuse(c, at, 'bad_request', 'cannot increment ' .. quote(name))
      return stop
    end
    after[name] = value
    set[#set + 1] = quote(name) .. ':' .. value
  end
  for name, value in pairs(after) do
    if fields[name] then bytes = bytes - #name - #fields[name] end
    if value then bytes = bytes + #name + #value end
  end
  if bytes > c.limits.state_bytes then
    refuse(c, at, 'state_too_large', 'the state has at most ' .. c.limits.state_bytes .. ' bytes')
    return stop
  end
  if c.pending then flush(c) end
  for name, value in pairs(after) do
    fields[name], c.patched[name], c.patched_any = value, true, true
  end
  c.version, c.sb = c.version + 1, bytes
  local seq = append(c, 'state.patched', argv[i], '{"version":' .. c.version .. ',"set":{' .. concat(set, ',')
    .. '},"remove":[' .. concat(remove, ',') .. ']}')
  remember(c, key, seq, c.version)
  c.out[at] = { c.version, seq }
  return stop
end
