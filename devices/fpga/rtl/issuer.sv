// Sends activations to the array, one vector a cycle. A pass is one tap of the kernel and one group of N input
// channels: all output pixels of the tile against one N x N block of weights. Passes follow each other without a gap,
// across commands too. `next_*` is the pass to come, plain names are the pass that runs.
module issuer (
    input  logic        clk,
    input  logic        rst,
    input  logic        take,
    /* verilator lint_off UNUSEDSIGNAL */ // some of a command is for the weight fetcher
    input  core_types::compute_t head,
    /* verilator lint_on UNUSEDSIGNAL */
    input  logic        weights_soon,          // the waiting weights are there in the next cycle
    input  logic        parameters_ready,
    output logic        free,
    output logic        pass_started,
    output logic        last_started,
    output logic        command_started,
    output core_types::output_t settings,
    output core_types::token_t token,
    output logic [15:0] a_address,
    output logic [15:0] acc_address,
    output logic        in_picture,            // one cycle later: the sample lies in the picture
    output logic [ 7:0] padding,           // and else this is what it is taken for
    output logic        waits_parameters,
    output logic        waits_pause
);
  // a sum may be added to again only when its last addition is written
  localparam logic [2:0] SHORTEST = 3'd4;

  // ---- the pass to come ----
  /* verilator lint_off UNUSEDSIGNAL */
  core_types::compute_t command;
  /* verilator lint_on UNUSEDSIGNAL */
  logic next_valid, next_first, next_last;
  logic [15:0] passes_left, last_column, last_row;
  logic [15:0] next_address, tap_address, group_address, next_x, next_y;
  logic [7:0] tap_column, tap_row;
  logic active, parameters_missing, start;
  logic go;    // the next pass has all it needs
  logic open;  // no pass runs, or its last vector: both are known a cycle before, for `start` moves all else
  logic [2:0] pause;

  assign free = !next_valid && !take;
  assign parameters_missing = next_last && command.last && !parameters_ready;
  assign start = go && open;
  assign pass_started = start;
  assign last_started = start && next_last && command.last;
  assign command_started = start && next_first;
  assign waits_parameters = weights_soon && parameters_missing;
  assign waits_pause = weights_soon && pause != '0;
  assign settings.residual = command.residual;
  assign settings.to_r = command.to_r;
  assign settings.to_a = command.to_a;
  assign settings.to_r_address = command.to_r_address;
  assign settings.to_a_address = command.to_a_address;
  assign settings.skip_address = command.skip_address;
  assign settings.scale_skip = command.scale_skip;
  assign settings.scale_main = command.scale_main;
  assign settings.high = command.high;
  assign settings.low = command.low;
  assign settings.zero_sum = command.zero_sum;
  assign settings.zero_skip = command.zero_skip;
  assign settings.zero_main = command.zero_main;
  assign settings.sum_shift = command.sum_shift;
  always_ff @(posedge clk) begin
    go <= !rst && !start && next_valid && weights_soon && !parameters_missing && pause <= 3'd1;
    if (rst) next_valid <= 1'b0;
    else if (take) begin
      next_valid <= 1'b1;
      next_first <= 1'b1;
      next_last <= head.passes == 16'd1;
      command <= head;
      passes_left <= head.passes;
      last_column <= head.columns - 16'd1;
      last_row <= head.rows - 16'd1;
      next_address <= head.a_address;
      tap_address <= head.a_address;
      group_address <= head.a_address;
      next_x <= head.first_column;
      next_y <= head.first_row;
      tap_column <= 8'd1;
      tap_row <= 8'd1;
    end else if (start) begin
      next_valid <= !next_last;
      next_first <= 1'b0;
      next_last <= passes_left == 16'd2;
      passes_left <= passes_left - 16'd1;
      tap_column <= tap_column + 8'd1;
      next_address <= next_address + 16'(command.dilation_columns);
      next_x <= next_x + 16'(command.dilation_columns);
      if (tap_column == command.kernel_columns) begin
        tap_column <= 8'd1;
        tap_row <= tap_row + 8'd1;
        tap_address <= tap_address + command.tap_step;
        next_address <= tap_address + command.tap_step;
        next_x <= command.first_column;
        next_y <= next_y + 16'(command.dilation_rows);
        if (tap_row == command.kernel_rows) begin
          tap_row <= 8'd1;
          group_address <= group_address + command.plane_pitch;
          tap_address <= group_address + command.plane_pitch;
          next_address <= group_address + command.plane_pitch;
          next_y <= command.first_row;
        end
      end
    end
  end

  // ---- the pass that runs ----
  logic begins, first, last, maximum, ends;
  logic column_ends, row_ends;  // columns_left and rows_left are 0
  logic [15:0] columns_left, rows_left, width, x, y, x_start, row_address, row_step, in_columns, in_rows;
  logic [7:0] stride_columns, stride_rows, padding_value;
  assign token.valid = active;
  assign token.swap = active && begins;
  assign token.first = first;
  assign token.last = last;
  assign token.maximum = maximum;
  assign token.ends = active && open && ends;
  always_ff @(posedge clk) begin
    in_picture <= x < in_columns && y < in_rows;
    padding <= padding_value;
    if (pause != '0) pause <= pause - 3'd1;
    begins <= start;
    open <= 1'b1;
    if (rst) begin
      active <= 1'b0;
      pause <= '0;
    end else if (start) begin
      active <= 1'b1;
      pause <= SHORTEST;
      first <= command.first && next_first;
      last <= command.last && next_last;
      ends <= next_last;
      maximum <= command.maximum;
      a_address <= next_address;
      row_address <= next_address + command.row_step;
      acc_address <= command.acc_address;
      x <= next_x;
      x_start <= next_x;
      y <= next_y;
      columns_left <= last_column;
      column_ends <= last_column == '0;
      width <= last_column;
      rows_left <= last_row;
      row_ends <= last_row == '0;
      open <= last_column == '0 && last_row == '0;
      row_step <= command.row_step;
      in_columns <= command.in_columns;
      in_rows <= command.in_rows;
      stride_columns <= command.stride_columns;
      stride_rows <= command.stride_rows;
      padding_value <= command.padding;
    end else if (active) begin
      acc_address <= acc_address + 16'd1;
      if (!column_ends) begin
        columns_left <= columns_left - 16'd1;
        column_ends <= columns_left == 16'd1;
        open <= columns_left == 16'd1 && row_ends;
        a_address <= a_address + 16'(stride_columns);
        x <= x + 16'(stride_columns);
      end else begin
        columns_left <= width;
        column_ends <= width == '0;
        rows_left <= rows_left - 16'd1;
        row_ends <= rows_left == 16'd1;
        open <= row_ends || (width == '0 && rows_left == 16'd1);
        a_address <= row_address;
        row_address <= row_address + row_step;
        x <= x_start;
        y <= y + 16'(stride_rows);
        if (row_ends) active <= 1'b0;
      end
    end
  end
endmodule
