# The Ruby zygote: a warm interpreter that forks for each program. See python.py for the protocol.
require "socket"

module FirelaneZygote
  module_function

  CONTROL = UNIXSocket.for_fd(3)

  def receive(control)
    data, _, _, *ancillary = control.recvmsg(65536, 0, nil, scm_rights: true)
    descriptors = ancillary.flat_map { |message| message.unix_rights || [] }
    exit!(0) if data.nil? || data.empty?
    while data.bytesize < 4 || data.bytesize - 4 < data.unpack1("N")
      more = control.readpartial(65536)
      data << more
    end
    fields = data.byteslice(4..).split("\0", -1)[0...-1]
    count = Integer(fields[1])
    [descriptors, fields[0], fields[2, count], fields[(2 + count)..]]
  rescue EOFError
    exit!(0)
  end

  # The child gives up what is the zygote's.
  def leave(stdin, stdout, stderr)
    Process.setsid
    CONTROL.close
    STDIN.reopen(stdin)
    STDOUT.reopen(stdout)
    STDERR.reopen(stderr)
    # What is not a terminal is buffered, except stderr.
    STDOUT.sync = false
    STDERR.sync = true
  end

  def change(environment)
    environment.each do |word|
      name, value = word.split("=", 2)
      ENV[name] = value
    end
  end

  def become(file, arguments, environment)
    folder, *arguments = arguments
    Dir.chdir(folder)
    change(environment)
    # Everything that was seeded before the snapshot is the same in all clones.
    Random.srand
    # Nothing of this is there for the program.
    Object.send(:remove_const, :FirelaneZygote)
    run(file, arguments)
  end

  def park(descriptors)
    between = fork do
      fork do
        *streams, socket = descriptors
        leave(*streams)
        streams.each(&:close)
        socket.autoclose = false
        channel = UNIXSocket.for_fd(socket.fileno)
        channel.write("#{Process.pid}\n")
        _, *order = receive(channel)
        channel.close
        become(*order)
      end
      exit!(0)
    end
    descriptors.each(&:close)
    Process.wait(between)
    CONTROL.write("parked\n")
  end

  def follow(descriptors, order)
    child = fork do
      *streams, gate = descriptors
      leave(*streams)
      exit!(125) unless gate.read(1)
      descriptors.each(&:close)
      become(*order)
    end
    # Whoever reads the streams waits for the last who has them open.
    descriptors.each(&:close)
    CONTROL.write("#{child}\n")
    CONTROL.recv(1)
    Process.wait(child)
    CONTROL.write("collected\n")
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
  zygote = FirelaneZygote
  zygote::CONTROL.write("ready\n")
  loop do
    descriptors, *order = zygote.receive(zygote::CONTROL)
    if order[0].empty?
      zygote.park(descriptors)
    else
      zygote.follow(descriptors, order)
    end
  end
end.call
