// The core on a board: AXI4-Lite registers (axi_control.sv), one AXI4 master for the memory image and one, which only
// reads, for the commands. Plain Verilog, as Vivado's block designs want it.
module axi_core #(
    parameter N = 8,
    parameter A_LOG2 = 12,
    parameter R_LOG2 = 11,
    parameter W_LOG2 = 11,
    parameter ACC_LOG2 = 10,
    parameter ADDRESS = 40
) (
    input  wire               aclk,
    input  wire               aresetn,
    // registers
    input  wire               s_axi_control_awvalid,
    output wire               s_axi_control_awready,
    input  wire [        7:0] s_axi_control_awaddr,
    input  wire               s_axi_control_wvalid,
    output wire               s_axi_control_wready,
    input  wire [       31:0] s_axi_control_wdata,
    /* verilator lint_off UNUSEDSIGNAL */ // registers are written whole; bursts are as long as they were asked for
    input  wire [        3:0] s_axi_control_wstrb,
    output wire               s_axi_control_bvalid,
    input  wire               s_axi_control_bready,
    output wire [        1:0] s_axi_control_bresp,
    input  wire               s_axi_control_arvalid,
    output wire               s_axi_control_arready,
    input  wire [        7:0] s_axi_control_araddr,
    output wire               s_axi_control_rvalid,
    input  wire               s_axi_control_rready,
    output wire [       31:0] s_axi_control_rdata,
    output wire [        1:0] s_axi_control_rresp,
    // the memory image
    output wire               m_axi_data_awvalid,
    input  wire               m_axi_data_awready,
    output wire [ADDRESS-1:0] m_axi_data_awaddr,
    output wire [        7:0] m_axi_data_awlen,
    output wire [        2:0] m_axi_data_awsize,
    output wire [        1:0] m_axi_data_awburst,
    output wire [        3:0] m_axi_data_awcache,
    output wire [        2:0] m_axi_data_awprot,
    output wire               m_axi_data_wvalid,
    input  wire               m_axi_data_wready,
    output wire [    8*N-1:0] m_axi_data_wdata,
    output wire [      N-1:0] m_axi_data_wstrb,
    output wire               m_axi_data_wlast,
    input  wire               m_axi_data_bvalid,
    output wire               m_axi_data_bready,
    input  wire [        1:0] m_axi_data_bresp,
    output wire               m_axi_data_arvalid,
    input  wire               m_axi_data_arready,
    output wire [ADDRESS-1:0] m_axi_data_araddr,
    output wire [        7:0] m_axi_data_arlen,
    output wire [        2:0] m_axi_data_arsize,
    output wire [        1:0] m_axi_data_arburst,
    output wire [        3:0] m_axi_data_arcache,
    output wire [        2:0] m_axi_data_arprot,
    input  wire               m_axi_data_rvalid,
    output wire               m_axi_data_rready,
    input  wire [    8*N-1:0] m_axi_data_rdata,
    input  wire               m_axi_data_rlast,
    input  wire [        1:0] m_axi_data_rresp,
    // the commands
    output wire               m_axi_commands_arvalid,
    input  wire               m_axi_commands_arready,
    output wire [ADDRESS-1:0] m_axi_commands_araddr,
    output wire [        7:0] m_axi_commands_arlen,
    output wire [        2:0] m_axi_commands_arsize,
    output wire [        1:0] m_axi_commands_arburst,
    output wire [        3:0] m_axi_commands_arcache,
    output wire [        2:0] m_axi_commands_arprot,
    input  wire               m_axi_commands_rvalid,
    output wire               m_axi_commands_rready,
    input  wire [    8*N-1:0] m_axi_commands_rdata,
    input  wire               m_axi_commands_rlast,
    input  wire [        1:0] m_axi_commands_rresp
    /* verilator lint_on UNUSEDSIGNAL */
);
  /* verilator lint_off WIDTH */
  localparam [2:0] SIZE = $clog2(N);
  /* verilator lint_on WIDTH */
  localparam [1:0] INCREMENTING = 2'b01, OKAY = 2'b00;
  localparam [3:0] BUFFERABLE = 4'b0011;
  localparam [2:0] UNPRIVILEGED = 3'b000;
  wire rst = !aresetn;
  wire start, over, idle, given, commands_error, reader_error, writer_error;
  wire [ADDRESS-1:0] commands, base;
  wire [31:0] count;
  wire command_valid, command_ready, read_valid, read_ready, data_valid, data_ready;
  wire write_valid, write_ready, write_last, write_landed;
  wire [511:0] command;
  wire [31:0] read_address, write_address;
  wire [15:0] read_words;
  wire [8*N-1:0] data, write_data;
  wire [2:0] activity;
  assign over = given && idle;

  assign s_axi_control_bresp = OKAY;
  assign s_axi_control_rresp = OKAY;
  assign m_axi_data_awsize = SIZE;
  assign m_axi_data_awburst = INCREMENTING;
  assign m_axi_data_awcache = BUFFERABLE;
  assign m_axi_data_awprot = UNPRIVILEGED;
  assign m_axi_data_wstrb = {N{1'b1}};
  assign m_axi_data_arsize = SIZE;
  assign m_axi_data_arburst = INCREMENTING;
  assign m_axi_data_arcache = BUFFERABLE;
  assign m_axi_data_arprot = UNPRIVILEGED;
  assign m_axi_commands_arsize = SIZE;
  assign m_axi_commands_arburst = INCREMENTING;
  assign m_axi_commands_arcache = BUFFERABLE;
  assign m_axi_commands_arprot = UNPRIVILEGED;

  axi_control #(
      .N(N), .A_LOG2(A_LOG2), .R_LOG2(R_LOG2), .W_LOG2(W_LOG2), .ACC_LOG2(ACC_LOG2), .ADDRESS(ADDRESS)
  ) control (
      .clk(aclk), .rst(rst), .awvalid(s_axi_control_awvalid), .awready(s_axi_control_awready),
      .awaddr(s_axi_control_awaddr), .wvalid(s_axi_control_wvalid), .wready(s_axi_control_wready),
      .wdata(s_axi_control_wdata), .bvalid(s_axi_control_bvalid), .bready(s_axi_control_bready),
      .arvalid(s_axi_control_arvalid), .arready(s_axi_control_arready), .araddr(s_axi_control_araddr),
      .rvalid(s_axi_control_rvalid), .rready(s_axi_control_rready), .rdata(s_axi_control_rdata), .start(start),
      .commands(commands), .count(count), .base(base), .over(over),
      .error(commands_error || reader_error || writer_error), .activity(activity),
      .word_read(data_valid && data_ready), .word_written(write_valid && write_ready)
  );
  axi_commands #(.N(N), .ADDRESS(ADDRESS)) stream (
      .clk(aclk), .rst(rst), .start(start), .address(commands), .count(count), .given(given), .error(commands_error),
      .command_valid(command_valid), .command_ready(command_ready), .command(command),
      .arvalid(m_axi_commands_arvalid), .arready(m_axi_commands_arready), .araddr(m_axi_commands_araddr),
      .arlen(m_axi_commands_arlen), .rvalid(m_axi_commands_rvalid), .rready(m_axi_commands_rready),
      .rdata(m_axi_commands_rdata), .rlast(m_axi_commands_rlast), .rresp(m_axi_commands_rresp)
  );
  axi_reader #(.N(N), .ADDRESS(ADDRESS)) reader (
      .clk(aclk), .rst(rst), .start(start), .base(base), .error(reader_error), .read_valid(read_valid),
      .read_ready(read_ready), .read_address(read_address), .read_words(read_words), .data_valid(data_valid),
      .data_ready(data_ready), .data(data), .arvalid(m_axi_data_arvalid), .arready(m_axi_data_arready),
      .araddr(m_axi_data_araddr), .arlen(m_axi_data_arlen), .rvalid(m_axi_data_rvalid), .rready(m_axi_data_rready),
      .rdata(m_axi_data_rdata), .rresp(m_axi_data_rresp)
  );
  axi_writer #(.N(N), .ADDRESS(ADDRESS)) writer (
      .clk(aclk), .rst(rst), .start(start), .base(base), .error(writer_error), .write_valid(write_valid),
      .write_ready(write_ready), .write_address(write_address), .write_last(write_last), .write_data(write_data),
      .write_landed(write_landed), .awvalid(m_axi_data_awvalid), .awready(m_axi_data_awready),
      .awaddr(m_axi_data_awaddr), .awlen(m_axi_data_awlen), .wvalid(m_axi_data_wvalid), .wready(m_axi_data_wready),
      .wdata(m_axi_data_wdata), .wlast(m_axi_data_wlast), .bvalid(m_axi_data_bvalid), .bready(m_axi_data_bready),
      .bresp(m_axi_data_bresp)
  );
  core #(.N(N), .A_LOG2(A_LOG2), .R_LOG2(R_LOG2), .W_LOG2(W_LOG2), .ACC_LOG2(ACC_LOG2)) inner (
      .clk(aclk), .rst(rst || start), .command_valid(command_valid), .command_ready(command_ready),
      .command(command), .read_valid(read_valid), .read_ready(read_ready), .read_address(read_address),
      .read_words(read_words), .data_valid(data_valid), .data_ready(data_ready), .data(data),
      .write_valid(write_valid), .write_ready(write_ready), .write_address(write_address), .write_last(write_last),
      .write_data(write_data), .write_landed(write_landed), .idle(idle), .activity(activity),
      /* verilator lint_off PINCONNECTEMPTY */ // these are for the simulation's record of commands
      .load_done(), .compute_begun(), .compute_done(), .store_done()
      /* verilator lint_on PINCONNECTEMPTY */
  );
endmodule
