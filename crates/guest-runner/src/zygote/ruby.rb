# The Ruby zygote: a warm interpreter that forks for each program. See python.py for the protocol.
require "socket"

module FirelaneZygote
  module_function

  CONTROL = UNIXSocket.for_fd(3)

  def receive
    data, _, _, *ancillary = CONTROL.recvmsg(65536, 0, nil, scm_rights: true)
    exit!(0) if data.nil? || data.empty?
    streams = ancillary.flat_map { |message| message.unix_rights || [] }
    while data.bytesize < 4 || data.bytesize - 4 < data.unpack1("N")
      more = CONTROL.readpartial(65536)
      data << more
    end
    fields = data.byteslice(4..).split("\0", -1)[0...-1]
    count = Integer(fields[1])
    [streams, fields[0], fields[2, count], fields[(2 + count)..]]
  rescue EOFError
    exit!(0)
  end

  def become(streams, environment)
    stdin, stdout, stderr, folder, gate = streams
    Process.setsid
    CONTROL.close
    STDIN.reopen(stdin)
    STDOUT.reopen(stdout)
    STDERR.reopen(stderr)
    # What is not a terminal is buffered, except stderr.
    STDOUT.sync = false
    STDERR.sync = true
    Dir.chdir("/proc/self/fd/#{folder.fileno}")
    exit!(125) unless gate.read(1)
    streams.each(&:close)
    ENV.replace(environment.to_h { |pair| pair.split("=", 2) })
    # Everything that was seeded before the snapshot is the same in all clones.
    Random.srand
  end

  # Frames of this file are no part of the program's story.
  def own(error)
    frames = error.backtrace
    error.set_backtrace(frames.reject { |frame| frame.start_with?("-e:") }) if frames
    own(error.cause) if error.cause
    error
  end

  # What comes after __END__ is the program's DATA.
  def give_data(file, source)
    head = source.b[/\A.*?^__END__\r?\n/m]
    return unless head
    data = File.open(file)
    data.pos = head.bytesize
    Object.const_set(:DATA, data)
  end

  def run(file, arguments)
    ARGV.replace(arguments)
    path = File.join(Dir.pwd, file)
    $0 = path
    source = File.read(path)
    give_data(path, source)
    TOPLEVEL_BINDING.eval(source, path, 1)
  rescue SystemExit
    raise
  rescue LocalJumpError => error
    raise own(error) unless error.reason == :return
  rescue SyntaxError => error
    raise unless own(error).backtrace.empty?
    # The interpreter says this before there is a program that could raise it.
    STDERR.puts(error.message)
    exit(1)
  rescue Exception => error
    raise own(error)
  end
end

ARGV.each { |snippet| TOPLEVEL_BINDING.dup.eval(snippet) }
GC.start
GC.compact if GC.respond_to?(:compact)
lambda do
  control = FirelaneZygote::CONTROL
  control.write("ready\n")
  loop do
    streams, file, arguments, environment = FirelaneZygote.receive
    child = fork do
      zygote = FirelaneZygote
      zygote.become(streams, environment)
      # Nothing of this is there for the program.
      Object.send(:remove_const, :FirelaneZygote)
      zygote.run(file, arguments)
    end
    streams.each(&:close)
    control.write("#{child}\n")
    _, status = Process.wait2(child)
    control.write("#{status.to_i}\n")
  end
end.call
